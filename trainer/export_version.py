"""A model version as files that plain transformers and peft load: adapter, tokenizer, card, and whole weights if asked.

OUT/README.md          the model card
OUT/SHA256SUMS         of every other file, as `sha256sum --check` reads it
OUT/adapter/           adapter and tokenizer
OUT/merged/            the base model's weights with the adapter added, and the tokenizer
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

from storage.artifacts import write_folder
from storage.enums import ModelKind
from storage.export.adapter import CONFIG, portable_config
from storage.export.model_card import ADAPTER, MERGED, CardFacts, model_card
from trainer.ensemble import heads_of
from trainer.place import adapter_of
from trainer.policy import add_adapters, load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model

SUMS = "SHA256SUMS"


class Exported(NamedTuple):
    """What was written: the SHA-256 of each file by its path within the folder."""

    folder: Path
    files: dict[str, str]


def export_version(facts: CardFacts, home: Path, out: Path, *, merged: bool = False) -> Exported:
    """Write a version to the new folder `out`, all at once; the adapter is checked against its registered hash.

    Merged weights have the type in which this machine serves them: float32 on a CPU, bfloat16 elsewhere. Raises
    `Conflict` when `out` is there already, `ModelUnusable` when the adapter or its base model cannot be used.
    """
    version = facts.version
    source = Path(str(adapter_of(version, home)))
    base = resolve_base_model(version.base_model)
    heads = 0 if version.kind is ModelKind.POLICY else heads_of(source)
    files: dict[str, str] = {}

    def write(folder: Path) -> None:
        _write_adapter(source, folder / ADAPTER, version.base_model, base)
        if merged:
            _write_merged(source, folder / MERGED, base, heads)
        (folder / "README.md").write_text(model_card(facts, merged=merged, heads=heads), "utf-8")
        files.update(sums_of(folder))
        (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in files.items()), "utf-8")

    write_folder(out, write)
    return Exported(out, files)


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in `folder`, by its path within."""
    found = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _write_adapter(source: Path, destination: Path, name: str, base: str) -> None:
    shutil.copytree(source, destination)
    (destination / CONFIG).write_bytes(portable_config(source / CONFIG, name))
    load_tokenizer(base).save_pretrained(destination)


def _write_merged(source: Path, destination: Path, base: str, heads: int) -> None:
    # On the CPU, whose memory holds what an accelerator's may not; in the type that is served.
    model = load_model(base, pick_dtype("auto", pick_device("auto")), "cpu", heads=heads)
    model = add_adapters(model, {"exported": source}).merge_and_unload()
    model.save_pretrained(destination)
    load_tokenizer(base).save_pretrained(destination)
