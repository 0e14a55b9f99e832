"""Snapshots: training data frozen as Parquet under the artifact folder, hashed by content, tied to feedback in SQL.

The hash depends on the rows alone (messages, texts, source, weight, split, and the words of the critiques that led to
them), not on ids or times: the same annotations and settings give the same snapshot row, on any database.
A snapshot has one form (`storage.forms`), the one that the recipe needs; everything else is the same for all of them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.arrow import to_table
from storage.artifacts import publish_folder
from storage.configs import SnapshotSettings
from storage.enums import PairSource, SnapshotForm, Split
from storage.errors import Conflict, FeedbackError, NotEnoughData, NotFound
from storage.forms import feedback, preference, prompt_completion, unpaired
from storage.forms.rows import Row
from storage.models import (
    Base,
    Project,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
    SnapshotRowCritique,
    SnapshotRowRefinement,
    SnapshotRowRule,
    utc_now,
)
from storage.preferences import PairCounts, PairSet
from storage.rule_rows import with_rules
from storage.taint import check_snapshot


class Form(NamedTuple):
    """What a snapshot of a form holds."""

    schema: pa.Schema
    stream: Callable[[Session, Project, SnapshotSettings, PairCounts], Iterator[Row]]
    rows: str  # what they are called to people


FORMS: dict[SnapshotForm, Form] = {
    SnapshotForm.PREFERENCE: Form(preference.SCHEMA, preference.stream, "pairs"),
    SnapshotForm.PROMPT_COMPLETION: Form(prompt_completion.SCHEMA, prompt_completion.stream, "refinements"),
    SnapshotForm.UNPAIRED: Form(unpaired.SCHEMA, unpaired.stream, "rated completions"),
    SnapshotForm.FEEDBACK: Form(feedback.SCHEMA, feedback.stream, "criticised or rated completions"),
}
_FORMAT = "snapshot-2"  # part of every hash: change it when the same rows would be written differently
_BATCH = 5_000  # rows a row group
_Rows = dict[Split, list[tuple[str, Row]]]  # (digest, row), in the order of the digests


def build_snapshot(
    session: Session,
    project: Project,
    settings: SnapshotSettings,
    home: Path,
    form: SnapshotForm = SnapshotForm.PREFERENCE,
) -> Snapshot:
    """Freeze the project's feedback in a form; gives the existing snapshot back when its content is the same.

    Files of an existing snapshot that were deleted or changed are written anew.
    Raises `NotEnoughData` with the number that is missing.
    """
    counts = PairCounts()
    found = FORMS[form].stream(session, project, settings, counts)
    rows = _in_stable_order(with_rules(session, project, found, form, settings, counts))
    _require_enough(rows, counts, settings, FORMS[form].rows)
    content_hash = _content_hash(rows, form)
    existing = _find(session, project, content_hash)
    if existing is not None:
        if _damage(existing, home) is not None:
            existing.report = {**existing.report, "files": _publish(rows, home, existing.folder, form)}
            session.flush()
        return existing
    # Ids stand in the files, so two projects with the same content must not share a folder.
    folder = f"artifacts/snapshots/{content_hash[:12]}-p{project.id}"
    snapshot = Snapshot(
        project_id=project.id,
        form=form,
        content_hash=content_hash,
        folder=folder,
        settings=settings.model_dump(mode="json"),
        report={**_report(rows, counts), "files": _publish(rows, home, folder, form)},
    )
    try:
        with session.begin_nested():
            session.add(snapshot)
            session.flush()
    except IntegrityError:  # PostgreSQL: another process froze the same pairs a moment ago
        other = _find(session, project, content_hash)
        if other is None:
            raise
        return other
    _record_rows(session, snapshot, rows)
    check_snapshot(session, snapshot, utc_now())
    return snapshot


def _report(rows: _Rows, counts: PairCounts) -> dict[str, Any]:
    """What was used and left out, and why: totals, then by split. "pairs" are rows, whatever the form."""
    by_split: dict[str, Any] = {}
    for split, of_split in rows.items():
        used = {source.value: n for (where, source), n in sorted(counts.used.items()) if where is split}
        left_out = {reason: n for (where, reason), n in sorted(counts.left_out.items()) if where is split}
        by_split[split.value] = {
            "pairs": len(of_split),
            "prompts": len({row.prompt_id for _, row in of_split}),
            "used": used,
            "left_out": left_out,
        }
    sums = PairSet([], counts)
    pairs = sum(len(of_split) for of_split in rows.values())
    taught = Counter(str(one.id) for of_split in rows.values() for _, row in of_split for one in row.rules)
    of_rules = {"rules": dict(sorted(taught.items()))} if taught else {}
    return {"pairs": pairs, "used": sums.used, "left_out": sums.left_out, "splits": by_split, **of_rules}


def snapshot_paths(snapshot: Snapshot, home: Path) -> dict[Split, Path]:
    """The Parquet file of each split; a split without pairs has a file without rows."""
    return {split: home / snapshot.folder / f"{split.value}.parquet" for split in Split}


def verify_snapshot(snapshot: Snapshot, home: Path) -> None:
    """Raise `NotFound` or `FeedbackError` with the mend when a file of the snapshot is missing or has changed."""
    damage = _damage(snapshot, home)
    if damage is not None:
        raise damage


def _damage(snapshot: Snapshot, home: Path) -> FeedbackError | None:
    name = snapshot.content_hash[:12]
    mend = "queue the training again, which writes it anew from the stored annotations"
    for split, path in snapshot_paths(snapshot, home).items():
        if not path.is_file():
            return NotFound(f"snapshot {name}: {path} is missing; {mend}, or restore it from a backup")
        if _file_sha256(path) != snapshot.report["files"][split.value]["sha256"]:
            return FeedbackError(f"snapshot {name}: {path} has been changed; {mend}")
    return None


def _find(session: Session, project: Project, content_hash: str) -> Snapshot | None:
    return session.scalar(
        select(Snapshot).where(Snapshot.project_id == project.id, Snapshot.content_hash == content_hash)
    )


def _in_stable_order(found: Iterable[Row]) -> _Rows:
    """Ordered by content, so that equal snapshots hold equal rows at equal positions whatever the ids are."""
    rows: _Rows = {split: [] for split in Split}
    for row in found:
        rows[row.split].append((row.digest(), row))
    for of_split in rows.values():
        of_split.sort(key=lambda row: row[0])
    return rows


def _content_hash(rows: _Rows, form: SnapshotForm) -> str:
    whole = hashlib.sha256(f"{_FORMAT}:{form.value}".encode())
    for split in Split:
        whole.update(f"\n{split.value}\n".encode())
        for digest, _ in rows[split]:
            whole.update(digest.encode())
    return whole.hexdigest()


def _require_enough(rows: _Rows, counts: PairCounts, settings: SnapshotSettings, name: str) -> None:
    wanted = {Split.TRAIN: settings.min_train_pairs, Split.TEST: settings.min_test_pairs}
    for split, least in wanted.items():
        have = sum(row.source is not PairSource.ANCHOR for _, row in rows[split])
        if have < least:
            left_out = ", ".join(f"{reason} {n}" for reason, n in PairSet([], counts).left_out.items())
            everything = sum(len(of_split) for of_split in rows.values())
            raise NotEnoughData(
                f"{least - have} more {split.value} {name} are needed: {have} of at least {least}"
                f" ({everything} {name} in all{'; left out: ' + left_out if left_out else ''});"
                " annotate more items or import feedback"
            )


def _publish(rows: _Rows, home: Path, folder: str, form: SnapshotForm) -> dict[str, dict[str, Any]]:
    """Write the files under a temporary name and move the whole folder into place; rows and SHA-256 by split."""
    destination = home / folder
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="snapshot-") as name:
        files: dict[str, dict[str, Any]] = {}
        for split, of_split in rows.items():
            path = Path(name) / f"{split.value}.parquet"
            _write_parquet(path, [row for _, row in of_split], FORMS[form].schema)
            files[split.value] = {"rows": len(of_split), "sha256": _file_sha256(path)}
        try:
            publish_folder(Path(name), destination)
        except Conflict:  # damaged, or left by a transaction that never ended: no row needs it as it is
            shutil.rmtree(destination)
            publish_folder(Path(name), destination)
    return files


def _write_parquet(path: Path, rows: list[Row], schema: pa.Schema) -> None:
    in_order = itemgetter(*schema.names)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(rows), _BATCH):
            writer.write_table(to_table([in_order(row.columns()) for row in rows[start : start + _BATCH]], schema))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_rows(session: Session, snapshot: Snapshot, rows: _Rows) -> None:
    """The rows in SQL that tie each row to the annotations, critiques and refinements it was derived from."""
    connection = session.connection()
    for split, of_split in rows.items():
        for start in range(0, len(of_split), _BATCH):
            batch = dict(enumerate(of_split[start : start + _BATCH], start))
            values = [
                {
                    "snapshot_id": snapshot.id,
                    "split": split,
                    "position": position,
                    "source": row.source,
                    "prompt_id": row.prompt_id,
                    "chosen_id": row.completion_id,
                    "rejected_id": row.rejected_id,
                    "weight": row.weight,
                    "digest": digest,
                }
                for position, (digest, row) in batch.items()
            ]
            connection.execute(insert(SnapshotRow), values)
            made = select(SnapshotRow.id, SnapshotRow.position).where(
                SnapshotRow.snapshot_id == snapshot.id,
                SnapshotRow.split == split,
                SnapshotRow.position.between(start, start + _BATCH - 1),
            )
            _tie(connection, [(row_id, batch[position][1]) for row_id, position in connection.execute(made)])


def _tie(connection: Connection, stored: list[tuple[int, Row]]) -> None:
    ties: list[tuple[type[Base], str, list[tuple[int, int]]]] = [
        (SnapshotRowAnnotation, "annotation_id", [(i, one) for i, row in stored for one in row.annotation_ids]),
        (SnapshotRowCritique, "critique_id", [(i, one.id) for i, row in stored for one in row.critiques]),
        (SnapshotRowRefinement, "refinement_id", [(i, one) for i, row in stored for one in row.refinement_ids]),
        (SnapshotRowRule, "rule_id", [(i, one.id) for i, row in stored for one in row.rules]),
    ]
    for table, name, pairs in ties:
        if pairs:
            connection.execute(insert(table), [{"snapshot_row_id": row_id, name: one} for row_id, one in pairs])
