"""/exports/{project}/{what}.{format}: what was collected as a file, for operators."""

from __future__ import annotations

from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from feedback_app.handlers.context import Context
from feedback_app.handlers.data import make_download
from feedback_app.security import signed_in
from feedback_app.sent_once import sent_once


def download_routes(ctx: Context) -> APIRouter:
    """The download route; the role is checked by the handler's policy."""
    router = APIRouter(include_in_schema=False)

    @router.get("/exports/{project}/{what}.{format}", response_model=None)
    async def download(request: Request, project: str, what: str, format: str) -> Response:
        user = await signed_in(ctx.sessions, request)
        if user is None:
            if "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
            return JSONResponse({"error": "not signed in"}, 401)
        path, report = await anyio.to_thread.run_sync(make_download, ctx, user.name, project, what, format)
        return sent_once(path, report, project, what, format)

    return router
