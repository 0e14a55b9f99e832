"""`feedback-app blind-test`: people compare the newest candidate with the champion, and do not know that they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project

app = typer.Typer(help="Blind tests of a candidate by people: start, show, stop.", no_args_is_help=True)


@app.command()
def start(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The newest candidate, for instance policy-v3.")],
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Let people compare a candidate with the champion inside the normal queue, until one of them has won.

    How sure it must be, and when it gives up, are settings: gate.test_error and gate.test_most.
    """
    from storage.blind_tests import as_shown
    from storage.blind_tests import start as begin
    from storage.registry import get_version

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        row = get_version(session, found, version)
        test = begin(session, found, row, default_base_model=store.settings.base_model)
        payload = {"project": found.name, **as_shown(session, test)}
    emit(payload, as_json, *_lines(payload))


@app.command()
def show(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """How the newest blind test of a project stands, and how many more comparisons it takes."""
    from storage.blind_tests import advance, as_shown, get_test

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        advance(session, found)
        payload = {"project": found.name, **as_shown(session, get_test(session, found))}
    emit(payload, as_json, *_lines(payload))


@app.command()
def stop(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """End the blind test that is going on; what people said stays, but decides nothing."""
    from storage.blind_tests import as_shown, get_test
    from storage.blind_tests import stop as end

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        test = get_test(session, found)
        end(session, test, None)
        payload = {"project": found.name, **as_shown(session, test)}
    emit(payload, as_json, *_lines(payload))


def _lines(told: Mapping[str, Any]) -> list[str]:
    decided, share = told["wins"] + told["losses"], told["share"]
    lines = [
        f"blind test {told['blind_test']} of {told['candidate']} against {told['champion']}: {told['state']}",
        f"{told['candidate']} won {told['wins']} of {decided} decided comparisons ({share['low']:.0%} to "
        f"{share['high']:.0%}, sure to {1 - told['error']:.0%} at every look), {told['ties']} ties",
    ]
    if told["state"] == "running":
        more = f"about {told['needed']} more" if told["needed"] is not None else f"up to {told['most'] - decided} more"
        lines.append(f"{more} decided comparisons; {told['waiting']} pairs wait in the queue")
    return lines
