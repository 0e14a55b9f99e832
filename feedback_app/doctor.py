"""`feedback-app doctor`: every check says what it found, and what to do when that is wrong.

Nothing is created or changed, except that the data folder is tried with a file that is removed at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

from feedback_app.settings import PREFIX, Settings, load_settings, unknown_variables
from feedback_app.supervisor import free_port
from storage.engine import make_engine, translate_errors
from storage.errors import FeedbackError, Invalid, ModelUnusable, StoreUnavailable
from storage.schema import require_current

NEEDED_FREE_GB = 2.0
OLDEST_PYTHON = (3, 11)


class Check(NamedTuple):
    """One thing that was looked at; `mend` is empty when it is well."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def examine(say: Callable[[str], None]) -> Iterator[Check]:
    """Every check, the quick ones first; those that need the settings are left out when they cannot be read."""
    yield python()
    yield packages()
    try:
        settings = load_settings()
    except Invalid as error:
        yield Check("settings", False, str(error), "set the variable to a value that is allowed, or unset it")
        return
    yield variables(settings)
    yield home(settings)
    yield disk(settings)
    yield database(settings)
    yield port(settings)
    say("loading the base model …")
    yield base_model(settings)


def python() -> Check:
    """Python is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= OLDEST_PYTHON
    return Check("python", ok, version, "" if ok else "install Python 3.11 or newer, then: make install")


def packages() -> Check:
    """What pyproject.toml asks for is installed, in versions that it admits."""
    from packaging.requirements import Requirement

    wrong = []
    for line in metadata.requires("feedback-app") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return Check("packages", not wrong, "; ".join(wrong) or "all there", "make install" if wrong else "")


def variables(settings: Settings) -> Check:
    """No environment variable looks like a setting and is none."""
    unknown = unknown_variables()
    if unknown:
        known = ", ".join(f"{PREFIX}{name.upper()}" for name in type(settings).model_fields)
        return Check("settings", False, f"unknown: {', '.join(unknown)}", f"unset or correct; known: {known}")
    given = [name for name in type(settings).model_fields if f"{PREFIX}{name.upper()}" in os.environ]
    return Check("settings", True, f"set: {', '.join(given)}" if given else "all at their defaults")


def home(settings: Settings) -> Check:
    """The data folder can be written, or made."""
    folder = settings.home
    exists = folder.exists()
    place = folder if exists else _nearest(folder)
    mend = f"make it writable for you, or set {PREFIX}HOME to a folder of yours"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check("data folder", False, f"{folder}: {(error.strerror or str(error)).lower()}", mend)
    return Check("data folder", True, str(folder) if exists else f"{folder} (made at the first start)")


def disk(settings: Settings) -> Check:
    """There is room for model versions and snapshots."""
    free = shutil.disk_usage(_nearest(settings.home)).free / 1e9
    ok = free >= NEEDED_FREE_GB
    mend = f"free some space, or set {PREFIX}HOME to a folder on a larger disk"
    return Check("disk", ok, f"{free:.1f} GB free", "" if ok else mend)


def database(settings: Settings) -> Check:
    """The database can be reached, has this program's tables, and takes writes."""
    from storage.schema import check

    shown = make_engine(settings.store_url).url.render_as_string(hide_password=True)
    try:
        with translate_errors():
            if check(settings.store_url).state == "empty":
                return Check("database", True, f"{shown} (no tables yet; made at the first start)")
            require_current(settings.store_url)
            _try_to_write(settings)
    except StoreUnavailable as error:
        return Check("database", False, f"{shown}: {error}", str(error).rpartition("; ")[2] or str(error))
    return Check("database", True, shown)


def _try_to_write(settings: Settings) -> None:
    """Begin a writing transaction and roll it back: a lock held by another program shows here."""
    engine = make_engine(settings.store_url)
    try:
        with engine.connect() as connection:
            connection.execute(text("UPDATE users SET name = name WHERE id = -1"))
            connection.rollback()
    finally:
        engine.dispose()


def port(settings: Settings) -> Check:
    """The web server's port is free; taken is fine when it is this app that answers there."""
    from feedback_app.supervisor import answers

    try:
        free_port(settings.host, settings.port)
    except FeedbackError as error:
        local = settings.model_copy(update={"public_url": ""})
        if answers(f"{local.url}/healthz"):
            return Check("port", True, f"{settings.port}: the app runs there")
        return Check("port", False, str(error), f"stop that program, or set {PREFIX}PORT")
    return Check("port", True, f"{settings.port} is free")


def base_model(settings: Settings) -> Check:
    """The base model loads, with a chat template, on the chosen device."""
    from transformers.utils.logging import disable_progress_bar

    from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model

    disable_progress_bar()
    mend = f"set {PREFIX}BASE_MODEL to `starter`, a local folder or a hub id of a chat model; {PREFIX}DEVICE to auto"
    try:
        path, device = resolve_base_model(settings.base_model), pick_device(settings.device)
        load_tokenizer(path)
        load_model(path, pick_dtype("auto", device), device)
    except ModelUnusable as error:
        return Check("base model", False, str(error), mend)
    return Check("base model", True, f"{settings.base_model} loads on {device}")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
