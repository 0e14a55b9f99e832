"""A ZIP archive written while it is sent: no copy on the disk, and no more of it in memory than one piece."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

_PIECE = 1 << 20  # bytes
_MADE = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive


class _Pieces(io.RawIOBase):
    """What is written, until it is taken."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def writable(self) -> bool:
        """It is; and it cannot be sought in, so that `zipfile` writes straight on."""
        return True

    def write(self, data: Any) -> int:
        """Keep `data`."""
        self._kept += data
        return len(data)

    def take(self) -> bytes:
        """What has been written since the last time."""
        taken, self._kept = bytes(self._kept), bytearray()
        return taken


def zipped(files: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    """The archive of `files`, by their names in it, piece by piece; weights do not get smaller, so they are stored."""
    pieces = _Pieces()
    with ZipFile(pieces, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            with archive.open(ZipInfo(name, _MADE), "w", force_zip64=True) as entry:
                if isinstance(content, bytes):
                    entry.write(content)
                else:
                    with content.open("rb") as file:
                        while piece := file.read(_PIECE):
                            entry.write(piece)
                            yield pieces.take()
            yield pieces.take()
    yield pieces.take()
