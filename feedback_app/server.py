"""The web application: sign-in, downloads, health, and the two Gradio pages behind one gate. Never imports torch."""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import text
from starlette import routing
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from feedback_app import api, policies
from feedback_app.handlers.context import Context
from feedback_app.i18n import said, t
from feedback_app.i18n.edge import Language
from feedback_app.pages import account, compare, lineage, review
from feedback_app.pages.downloads import download_routes
from feedback_app.pages.plain import page
from feedback_app.pages.sign_in import SignInRoutes
from feedback_app.quick import Quick
from feedback_app.security import BodyLimit, Gate, Mount, SameOrigin, SecurityHeaders, auth_dependency
from feedback_app.settings import Settings
from storage.engine import CONNECTIONS, make_engine, make_sessions, read_only, translate_errors
from storage.errors import Conflict, FeedbackError, Invalid, NotAllowed, NotFound, StoreUnavailable
from storage.schema import require_current

if TYPE_CHECKING:
    from gradio import Blocks

STATIC = Path(__file__).parent / "static"
KIB, MIB = 1024, 1024 * 1024
# Paths of plain forms: nothing long belongs there, and some of them answer to everybody.
FORMS = ("/login", "/logout", "/set-password", "/language", *account.PATHS)
# Seconds between two looks of Gradio at a queue that is empty.
QUEUE_LOOK = 0.01
# Seconds that open tabs get at shutdown before their streams are cut.
GRACE = 2

_STATUS = {NotFound: 404, NotAllowed: 403, Conflict: 409, Invalid: 422, StoreUnavailable: 503}


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application for `settings`; raises `StoreUnavailable` when the schema is not this program's."""
    require_current(settings.store_url)
    engine = make_engine(settings.store_url)
    ctx = Context(settings, make_sessions(engine))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # More threads than connections would only wait for one, and hold each other up.
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
        yield
        engine.dispose()

    pages: dict[str, Blocks] = {}
    # /docs and /openapi.json would describe the application to anybody: off.
    app = FastAPI(
        title="Feedback",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=_middleware(ctx, pages),
    )
    app.add_exception_handler(FeedbackError, _explain)
    app.add_api_route("/healthz", _health(ctx), include_in_schema=False, response_model=None)
    app.include_router(SignInRoutes(ctx).router)
    app.include_router(account.AccountRoutes(ctx).router)
    app.include_router(review.ReviewRoutes(ctx).router)
    app.include_router(lineage.LineageRoutes(ctx).router)
    app.include_router(compare.CompareRoutes(ctx).router)
    app.include_router(download_routes(ctx))
    app.mount(api.PATH, api.create_api(ctx))
    app.mount("/static", StaticFiles(directory=STATIC))
    app = _mount_pages(app, ctx, pages)
    # Routes are tried in turn: those that are asked for most come first. No two of them fit one address.
    app.router.routes.sort(key=lambda route: not isinstance(route, routing.Mount))
    return app


def _middleware(ctx: Context, pages: Mapping[str, Blocks]) -> list[Middleware]:
    # Outermost first. CORS with no allowed origin: without it Gradio reflects any origin, with credentials.
    mounts = {
        "/annotate": Mount(policies.EVERYONE),
        "/mine": Mount(policies.EVERYONE),
        "/play": Mount(policies.EVERYONE),
        "/operate": Mount(policies.OPERATORS, extra=("/gradio_api/upload", "/gradio_api/upload_progress")),
    }
    upload = ctx.settings.max_upload_mb * MIB + MIB
    limits = {"/operate/gradio_api/upload": upload, **dict.fromkeys(FORMS, 16 * KIB)}
    limits |= dict.fromkeys(api.BATCHES, 8 * MIB)
    return [
        Middleware(SecurityHeaders, scripted=("/annotate", "/mine", "/play", "/operate")),
        Middleware(CORSMiddleware, allow_origins=[]),
        Middleware(SameOrigin, public_url=ctx.settings.public_url),
        Middleware(BodyLimit, default=2 * MIB, limits=limits),
        Middleware(Language, pages=mounts),
        Middleware(Gate, sessions=ctx.sessions, mounts=mounts, denied=_denied),
        Middleware(Quick, ctx=ctx, pages=pages),
    ]


def _mount_pages(app: FastAPI, ctx: Context, pages: dict[str, Blocks]) -> FastAPI:
    uploads = ctx.settings.home / "tmp" / "uploads"
    uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
    uploads.chmod(0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr  # after the variables above: it reads them at import

    from feedback_app.pages import annotate, mine, operate, play, theme

    for path, build, roles, head in (
        ("/annotate", annotate.build, policies.EVERYONE, theme.head("annotate")),
        ("/mine", mine.build, policies.EVERYONE, theme.head("mine")),
        ("/play", play.build, policies.EVERYONE, theme.head("play")),
        ("/operate", operate.build, policies.OPERATORS, theme.head("operate")),
    ):
        pages[path] = _built(build, ctx)
        # By default it looks a thousand times a second whether something has been asked, on each page.
        pages[path]._queue.sleep_when_free = QUEUE_LOOK
        app = gr.mount_gradio_app(
            app,
            pages[path],
            path,
            auth_dependency=auth_dependency(roles),
            theme=theme.make_theme(),
            css_paths=[STATIC / f"{name}.css" for name in theme.styles(path[1:])],
            head=head,
            ssr_mode=False,
            run_history=False,
            show_error=False,
            footer_links=[],
            enable_monitoring=False,
            mcp_server=False,
            max_file_size=ctx.settings.max_upload_mb * MIB,
        )
    for mount in app.routes:
        if isinstance(mount, routing.Mount) and mount.path in pages:
            # The server's start starts the page's queue. Without this, so does the first request to Gradio's
            # "startup-events": a second worker on the same jobs, whose end stops the queue for everybody.
            mount.app.startup_events_triggered = True  # type: ignore[attr-defined]  # a Gradio App
    return app


def _built(build: Callable[[Context], Blocks], ctx: Context) -> Blocks:
    """A page's blocks. Gradio makes a whole application of routes three times while blocks are built, of which the one
    made by `mount_gradio_app` replaces all: without them the first page is there a second earlier."""
    from gradio.routes import App

    make = App.create_app
    App.create_app = staticmethod(lambda *_, **__: None)  # put back at once
    try:
        return build(ctx)
    finally:
        App.create_app = make


async def _denied(scope: Scope, receive: Receive, send: Send) -> None:
    response = page(
        "notice",
        t("Not for this account"),
        status=403,
        lead=t("This page is for operators. If you need it, ask one of them."),
        links=[(t("Go to your page"), "/")],
        sign_out=True,
    )
    await response(scope, receive, send)


async def _explain(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
    if "text/html" in request.headers.get("accept", ""):
        return page("notice", t("That did not work"), status=status, lead=said(error), links=[(t("Go on"), "/")])
    return JSONResponse({"error": str(error)}, status)


def _health(ctx: Context) -> Callable[[], Any]:
    def ask() -> None:
        with translate_errors(), read_only(ctx.sessions) as session:
            session.execute(text("SELECT 1"))

    async def healthz() -> Response:
        try:
            await anyio.to_thread.run_sync(ask)
        except FeedbackError as error:
            logging.getLogger(__name__).warning("health check: %s", error)
            return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "ok"})

    return healthz


def listen(settings: Settings) -> socket.socket:
    """A listening socket at the configured address; raises `Conflict` or `Invalid` in one line when that fails."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {settings.port} is taken; stop what uses it or choose another with --port") from error
        raise Invalid(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); check --host") from error
    sock.set_inheritable(True)
    return sock


def _keep_memory_small() -> None:
    """Give memory back to the system: by default glibc keeps an arena per thread, a third of this process's size."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library or system
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # <malloc.h>
    for parameter, value in ((trim_threshold, 128 * KIB), (mmap_threshold, MIB), (arena_max, 2)):
        mallopt(parameter, value)


def serve(settings: Settings, on_listening: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; `on_listening` is called with the address before the first request.

    Open tabs are cut after two seconds, so the process ends within three.
    """
    _keep_memory_small()
    sock = listen(settings)
    port = sock.getsockname()[1]
    settings = settings.model_copy(update={"port": port})
    app = create_app(settings)
    # Modules and pages live as long as the process: walking through them again and again would hold up requests.
    gc.collect()
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(
        app,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
    )
    if on_listening:
        on_listening(settings.url)
    uvicorn.Server(config).run(sockets=[sock])
