"""`feedback-app models export`: a version as files that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

Version = Annotated[str, typer.Argument(metavar="VERSION", help="For instance policy-v3.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The new folder to write.")]
Merged = Annotated[bool, typer.Option("--merged", help="The whole weights too, with the adapter added to them.")]


def export(
    version: Version, out: Out, project: OptionalProject = None, merged: Merged = False, as_json: JsonFlag = False
) -> None:
    """Write a version's adapter, tokenizer and model card to a folder, as plain transformers and peft load them."""
    from storage.engine import read_only
    from storage.export.model_card import card_facts
    from storage.registry import get_version

    with open_store() as store:
        home = store.settings.home
        with read_only(store.sessions) as session:
            found = pick_project(session, project)
            facts = card_facts(session, get_version(session, found, version))
        from trainer.export_version import export_version

        made = export_version(facts, home, out, merged=merged)
    payload = {"project": facts.project, "version": version, "out": out, "merged": merged, "files": made.files}
    emit(payload, as_json, table(("file", "sha256"), list(made.files.items())), f"{version} is in {out}")
