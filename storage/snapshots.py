"""Snapshots: training data frozen as Parquet under the artifact folder, hashed by content, tied to annotations in SQL.

The hash depends on the pairs alone (messages, texts, source, weight, split), not on ids or times: the same annotations
and settings give the same snapshot row, on any database. Critiques train through the refinements they led to.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES, to_table
from storage.artifacts import publish_folder
from storage.configs import SnapshotSettings
from storage.enums import Split
from storage.errors import Conflict, FeedbackError, NotEnoughData, NotFound
from storage.models import Project, Snapshot, SnapshotRow, SnapshotRowAnnotation, utc_now
from storage.preferences import Pair, PairSet, derive_pairs
from storage.taint import check_snapshot

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("source", pa.string()),
        ("weight", pa.float64()),
        ("prompt_id", pa.int64()),
        ("chosen_id", pa.int64()),
        ("rejected_id", pa.int64()),
        ("annotation_ids", pa.list_(pa.int64())),
        ("prompt_hash", pa.string()),
    ]
)
_FORMAT = "snapshot-1"  # part of every hash: change it when the same pairs would be written differently
_BATCH = 5_000  # rows a row group
_Rows = dict[Split, list[tuple[str, Pair]]]  # (digest, pair), in the order of the digests


def build_snapshot(session: Session, project: Project, settings: SnapshotSettings, home: Path) -> Snapshot:
    """Freeze the project's pairs; gives the existing snapshot back when its content is the same.

    Files of an existing snapshot that were deleted or changed are written anew.
    Raises `NotEnoughData` with the number that is missing.
    """
    found = derive_pairs(session, project, settings)
    rows = _in_stable_order(found.pairs)
    _require_enough(rows, found, settings)
    content_hash = _content_hash(rows)
    existing = _find(session, project, content_hash)
    if existing is not None:
        if _damage(existing, home) is not None:
            existing.report = {**existing.report, "files": _publish(rows, home, existing.folder)}
            session.flush()
        return existing
    # Ids stand in the files, so two projects with the same content must not share a folder.
    folder = f"artifacts/snapshots/{content_hash[:12]}-p{project.id}"
    snapshot = Snapshot(
        project_id=project.id,
        content_hash=content_hash,
        folder=folder,
        settings=settings.model_dump(mode="json"),
        report={**build_report(found), "files": _publish(rows, home, folder)},
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


def build_report(found: PairSet) -> dict[str, Any]:
    """What was used and left out, and why: totals, then by split; everything counts pairs unless named otherwise."""
    counts = found.counts
    by_split: dict[str, Any] = {}
    for split in Split:
        used = {source.value: n for (where, source), n in sorted(counts.used.items()) if where is split}
        left_out = {reason: n for (where, reason), n in sorted(counts.left_out.items()) if where is split}
        prompts = len({pair.prompt_id for pair in found.pairs if pair.split is split})
        by_split[split.value] = {
            "pairs": sum(used.values()),
            "prompts": prompts,
            "used": used,
            "left_out": left_out,
        }
    return {"pairs": len(found.pairs), "used": found.used, "left_out": found.left_out, "splits": by_split}


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


def _messages(pair: Pair) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in pair.messages]


def _digest(pair: Pair) -> str:
    content = [pair.split.value, _messages(pair), pair.chosen, pair.rejected, pair.source.value, pair.weight]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def _in_stable_order(pairs: list[Pair]) -> _Rows:
    """Ordered by content, so that equal snapshots hold equal rows at equal positions whatever the ids are."""
    rows: _Rows = {split: [] for split in Split}
    for pair in pairs:
        rows[pair.split].append((_digest(pair), pair))
    for of_split in rows.values():
        of_split.sort(key=lambda row: row[0])
    return rows


def _content_hash(rows: _Rows) -> str:
    whole = hashlib.sha256(_FORMAT.encode())
    for split in Split:
        whole.update(f"\n{split.value}\n".encode())
        for digest, _ in rows[split]:
            whole.update(digest.encode())
    return whole.hexdigest()


def _require_enough(rows: _Rows, found: PairSet, settings: SnapshotSettings) -> None:
    wanted = {Split.TRAIN: settings.min_train_pairs, Split.TEST: settings.min_test_pairs}
    for split, least in wanted.items():
        have = len(rows[split])
        if have < least:
            left_out = ", ".join(f"{reason} {n}" for reason, n in found.left_out.items())
            raise NotEnoughData(
                f"{least - have} more {split.value} pairs are needed: {have} of at least {least}"
                f" ({len(found.pairs)} pairs in all{'; left out: ' + left_out if left_out else ''});"
                " annotate more items or import feedback"
            )


def _publish(rows: _Rows, home: Path, folder: str) -> dict[str, dict[str, Any]]:
    """Write the files under a temporary name and move the whole folder into place; rows and SHA-256 by split."""
    destination = home / folder
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="snapshot-") as name:
        files: dict[str, dict[str, Any]] = {}
        for split, of_split in rows.items():
            path = Path(name) / f"{split.value}.parquet"
            _write_parquet(path, [pair for _, pair in of_split])
            files[split.value] = {"rows": len(of_split), "sha256": _file_sha256(path)}
        try:
            publish_folder(Path(name), destination)
        except Conflict:  # damaged, or left by a transaction that never ended: no row needs it as it is
            shutil.rmtree(destination)
            publish_folder(Path(name), destination)
    return files


def _write_parquet(path: Path, pairs: list[Pair]) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(pairs), _BATCH):
            writer.write_table(to_table([_row(pair) for pair in pairs[start : start + _BATCH]], SCHEMA))


def _row(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": _messages(pair),
        "chosen": _assistant(pair.chosen),
        "rejected": _assistant(pair.rejected),
        "source": pair.source.value,
        "weight": pair.weight,
        "prompt_id": pair.prompt_id,
        "chosen_id": pair.chosen_id,
        "rejected_id": pair.rejected_id,
        "annotation_ids": list(pair.annotation_ids),
        "prompt_hash": pair.prompt_hash,
    }


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_rows(session: Session, snapshot: Snapshot, rows: _Rows) -> None:
    """The rows in SQL that tie each pair to its annotations."""
    connection = session.connection()
    for split, of_split in rows.items():
        for start in range(0, len(of_split), _BATCH):
            batch = dict(enumerate((pair for _, pair in of_split[start : start + _BATCH]), start))
            values = [
                {
                    "snapshot_id": snapshot.id,
                    "split": split,
                    "position": position,
                    "source": pair.source,
                    "prompt_id": pair.prompt_id,
                    "chosen_id": pair.chosen_id,
                    "rejected_id": pair.rejected_id,
                    "weight": pair.weight,
                }
                for position, pair in batch.items()
            ]
            connection.execute(insert(SnapshotRow), values)
            made = select(SnapshotRow.id, SnapshotRow.position).where(
                SnapshotRow.snapshot_id == snapshot.id,
                SnapshotRow.split == split,
                SnapshotRow.position.between(start, start + _BATCH - 1),
            )
            ties = [
                {"snapshot_row_id": row_id, "annotation_id": annotation_id}
                for row_id, position in connection.execute(made)
                for annotation_id in batch[position].annotation_ids
            ]
            connection.execute(insert(SnapshotRowAnnotation), ties)
