"""`feedback-app gold`: items of which an operator says what is right, and how people do on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

if TYPE_CHECKING:
    from storage.models import Standing

app = typer.Typer(
    help="Gold items: what is right, for practice rounds and attention checks; and how people do.", no_args_is_help=True
)
ItemNumber = Annotated[int, typer.Argument(metavar="ITEM", min=1, max=2**31 - 1, help="As `gold list` shows it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")]


@app.command()
def add(
    annotation: Annotated[
        int | None, typer.Argument(metavar="[ANNOTATION]", min=1, max=2**31 - 1, help="Its number; or give --item.")
    ] = None,
    project: OptionalProject = None,
    item: Annotated[int | None, typer.Option("--item", min=1, max=2**31 - 1, help="The item it is on.")] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who wrote it, where several did.")] = None,
    tolerance: Annotated[int, typer.Option("--tolerance", min=0, help="Steps by which a rating may differ.")] = 1,
    tie_ok: Annotated[bool, typer.Option("--tie-ok", help="A tie is right as well.")] = False,
    explanation: Annotated[
        str, typer.Option("--explanation", help="Why, in Markdown, without A or B: they change places.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take an annotation as the gold standard of its item, which leaves the ordinary queue."""
    from storage import gold
    from storage.accounts import get_user
    from storage.errors import Invalid

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        if annotation is not None:
            said = gold.find_annotation(session, found, annotation)
        elif item is not None:
            said = gold.annotation_on(session, found, item, get_user(session, by) if by else None)
        else:
            raise Invalid("say which annotation: its number, or --item with the number of its item")
        standard = gold.standard_from(
            gold.said_in(said), tolerance=tolerance, tie_allowed=tie_ok, explanation=explanation
        )
        row = gold.mark(session, gold.find_item(session, found, said.item_id), standard, None, by="command line")
        payload = {"item": row.id, "annotation": said.id, "gold": row.gold}
    emit(payload, as_json, f"item {payload['item']} is a gold item: annotation {payload['annotation']} is right")


@app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The project's gold items, and how people did on each."""
    from storage.engine import read_only
    from storage.gold import list_gold

    with open_store() as store, read_only(store.sessions) as session:
        rows: list[dict[str, Any]] = [
            {
                "item": line.item.id,
                "kind": line.item.kind,
                "status": line.item.status,
                "prompt": line.prompt,
                "gold": line.standard.model_dump(mode="json"),
                "answers": line.answers,
                "score": line.score,
            }
            for line in list_gold(session, pick_project(session, project))
        ]
    shown = [(row["item"], row["kind"], row["prompt"][:60], row["answers"], row["score"]) for row in rows]
    emit({"gold": rows}, as_json, table(("item", "kind", "prompt", "answers", "mean score"), shown))


@app.command()
def remove(item: ItemNumber, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Make a gold item an ordinary one again; what was said on it counts from now on, but for practice."""
    from storage import gold

    with open_store() as store, store.sessions.begin() as session:
        found = gold.find_item(session, pick_project(session, project), item)
        gold.unmark(session, found, None, by="command line")
    emit({"item": item, "removed": True}, as_json, f"item {item} is an ordinary item again")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - for the standard input.")],
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Mark gold items from a file, with their prompts and completions where they are new; all or nothing."""
    from storage.errors import Invalid
    from storage.gold_files import import_gold

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read as text ({error})") from error
    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        made = [row.id for row in import_gold(session, found, text.splitlines(), None, by="command line")]
    emit({"items": made}, as_json, f"{len(made)} gold items: {', '.join(map(str, made))}")


@app.command()
def people(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Who passed the practice round with what score, who did how on attention checks, who is paused."""
    from storage.engine import read_only
    from storage.standings import list_standings

    with open_store() as store, read_only(store.sessions) as session:
        rows: list[dict[str, Any]] = [
            {
                "name": one.name,
                "stage": one.stage,
                "admitted": one.admitted,
                "attempts": one.attempts,
                "practice_score": one.score,
                "check_score": one.checks.score,
                "checks": one.checks.checks,
                "below": one.below,
            }
            for one in list_standings(session, pick_project(session, project))
        ]
    columns = ("name", "may", "admitted", "attempts", "practice score", "check score", "checks", "below the mark")
    emit({"people": rows}, as_json, table(columns, [tuple(row.values()) for row in rows]))


@app.command()
def waive(name: Name, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Let a person work without (further) practice."""
    from storage.standings import waive

    _decide(waive, name, project, as_json, "needs no practice")


@app.command()
def reset(name: Name, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Have a person practise again from the beginning."""
    from storage.standings import reset

    _decide(reset, name, project, as_json, "practises from the beginning")


@app.command()
def lift(name: Name, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """End a person's pause; their running score begins anew."""
    from storage.standings import lift

    _decide(lift, name, project, as_json, "goes on")


def _decide(decision: Callable[..., Standing], name: str, project: str | None, as_json: bool, line: str) -> None:
    from storage.accounts import get_user

    with open_store() as store, store.sessions.begin() as session:
        found, user = pick_project(session, project), get_user(session, name)
        decision(session, found, user, None, by="command line")
        told = f"{user.name} {line} in {found.name}"
    emit({"name": name, "project": found.name, "done": decision.__name__}, as_json, told)
