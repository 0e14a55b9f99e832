"""An export as an answer: a file that was made for it, and goes with it."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from storage.export import ExportReport


class SentOnce(FileResponse):
    """A file that is deleted when it was sent, refused (a Range header that makes no sense) or broken off.

    A background task would not do: it does not run where the answer becomes an error.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def sent_once(path: Path, report: ExportReport, project: str, what: str, format: str) -> SentOnce:
    """The export at `path` under a name that says what it is, with its rows and its hash in the headers."""
    shown = re.sub(r"[^\w-]+", "-", project).strip("-") or "project"
    return SentOnce(
        path,
        media_type="application/octet-stream",
        filename=f"{shown}-{what}.{format}",
        headers={"x-rows": str(report.rows), "x-sha256": report.sha256},
    )
