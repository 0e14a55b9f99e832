"""The API as an application of its own: its errors, its description, its door."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware

from feedback_app.api import errors, reads, writes
from feedback_app.api.auth import Authenticate
from feedback_app.api.schemas import Problem
from feedback_app.handlers.context import Context

PATH = "/api/v1"
BATCHES = (f"{PATH}/prompts", f"{PATH}/completions", f"{PATH}/feedback")  # whose bodies may be large
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be understood."},
    401: {"model": Problem, "description": "No token, or none in force."},
    403: {"model": Problem, "description": "The token or its user may not."},
    404: {"model": Problem, "description": "A project, prompt or completion that is not there."},
    409: {"model": Problem, "description": "It clashes with what is stored, or there is not enough data yet."},
    413: {"model": Problem, "description": "The body is too large."},
    415: {"model": Problem, "description": "The body is not JSON."},
    422: {"model": Problem, "description": "The request is malformed; nothing was stored."},
    429: {"model": Problem, "description": "Too much at once; wait as Retry-After says."},
    503: {"model": Problem, "description": "The store cannot be used now; try again."},
}


def create_api(ctx: Context) -> FastAPI:
    """The application to mount at `PATH`; every route needs a bearer token."""
    api = FastAPI(
        title="Feedback",
        version="1",
        description="Send prompts, completions and feedback of other programs; read and export what was collected.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        middleware=[Middleware(Authenticate, sessions=ctx.sessions)],
        # Read by `Authenticate` before anything else; here so that the description says so.
        dependencies=[Depends(HTTPBearer(auto_error=False, scheme_name="token"))],
        responses=_REFUSALS,
        root_path_in_servers=False,
        servers=[{"url": PATH}],
    )
    errors.install(api)
    api.include_router(reads.router(ctx))
    api.include_router(writes.router(ctx))
    return api
