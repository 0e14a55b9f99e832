"""`feedback-app up`, `web` and `worker`: the processes that stay."""

from __future__ import annotations

import gc
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, emit, one_time_link, prepare_home, prepare_schema, say

if TYPE_CHECKING:
    from threading import Event

    from feedback_app.settings import Settings
    from feedback_app.supervisor import Supervisor

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on. [FEEDBACK_HOST]", show_default=False)]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one. [FEEDBACK_PORT]", show_default=False),
]
StopWithStdin = Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)]
DEMO_PEOPLE = ("operator", "annotator")


def up(
    demo: Annotated[bool, typer.Option("--demo", help="Make a project to try: customer care, with prompts.")] = False,
    host: Host = None,
    port: Port = None,
    as_json: JsonFlag = False,
) -> None:
    """Start the web pages and the workers; one Ctrl-C stops all."""
    from feedback_app.settings import load_settings
    from feedback_app.supervisor import Supervisor, free_port, stop_requests
    from storage.engine import translate_errors
    from storage.schema import upgrade

    settings = load_settings(host=host, port=port)
    settings = load_settings(host=host, port=free_port(settings.host, settings.port))
    with stop_requests() as asked, translate_errors():
        prepare_home(settings)
        upgrade(settings.store_url)
        with Supervisor(settings.as_environment(), settings.logs, say) as processes:
            processes.start("web", ["web"], restart=False)
            links = _first_people(settings, demo)  # while the web framework loads
            processes.start("worker-generate", ["worker", "--kinds", "generate"], restart=True)
            if _wait_for_web(settings, processes, asked):
                # Only now: training can wait a moment, the login page cannot.
                processes.start("worker-train", ["worker", "--kinds", "refine,train"], restart=True)
                _greet(settings, links, as_json)
            while not asked.wait(0.5):
                processes.check()
            say("stopping …")


def web(
    host: Host = None, port: Port = None, stop_with_stdin: StopWithStdin = False, as_json: JsonFlag = False
) -> None:
    """Serve the web pages only; workers are started elsewhere."""
    gc.disable()  # until `serve` listens: collecting while hundreds of modules load costs an eighth of the start
    from feedback_app.settings import load_settings
    from feedback_app.supervisor import stop_with_stdin as watch_stdin
    from storage.engine import translate_errors

    settings = load_settings(host=host, port=port)
    _log_to_stderr(settings)
    with translate_errors():
        prepare_home(settings)
        prepare_schema(settings)
    if stop_with_stdin:
        watch_stdin()
    from feedback_app.server import serve

    serve(settings, lambda url: emit({"url": url}, as_json, f"web pages on {url}"))


def worker(
    kinds: Annotated[
        str, typer.Option("--kinds", help="What it does, of: generate, refine, train.")
    ] = "generate,refine,train",
    stop_with_stdin: StopWithStdin = False,
    as_json: JsonFlag = False,
) -> None:
    """Take queued runs and do them: write completions, train models."""
    from feedback_app.settings import load_settings
    from feedback_app.supervisor import stop_with_stdin as watch_stdin
    from storage.engine import translate_errors
    from storage.errors import Invalid
    from trainer.worker import WorkerSettings, kinds_of, run_worker

    try:
        wanted = kinds_of(name.strip() for name in kinds.split(","))
    except Invalid as error:
        raise typer.BadParameter(str(error), param_hint="'--kinds'") from error
    settings = load_settings()
    _log_to_stderr(settings)
    with translate_errors():
        prepare_home(settings)
        prepare_schema(settings)
    if stop_with_stdin:
        watch_stdin()
    emit({"kinds": sorted(wanted)}, as_json, f"worker for {', '.join(sorted(wanted))} runs; Ctrl-C stops it")
    run_worker(
        WorkerSettings(
            database_url=settings.store_url,
            home=settings.home,
            default_base_model=settings.base_model,
            kinds=wanted,
            poll_seconds=settings.poll_seconds,
            device=settings.device,
            webhook_private=settings.webhook_private,
            keep_checkpoints=timedelta(days=settings.checkpoint_days),
        )
    )


def _first_people(settings: Settings, demo: bool) -> dict[str, str]:
    """Make the first people and with `demo` the demo project; gives their one-time links by name."""
    from feedback_app.demo_project import ensure_demo_project
    from storage.accounts import create_user, find_user, list_users
    from storage.engine import make_engine, make_sessions
    from storage.enums import LinkPurpose, Role

    engine = make_engine(settings.store_url)
    links = {}
    with make_sessions(engine).begin() as session:
        if demo:
            ensure_demo_project(session)
        if demo or not list_users(session):
            for name in DEMO_PEOPLE:
                user = find_user(session, name) or create_user(session, name, Role(name))
                if user.disabled_at is None:
                    links[name] = one_time_link(settings, session, user, LinkPurpose.LOGIN)
    engine.dispose()
    return links


def _wait_for_web(settings: Settings, processes: Supervisor, asked: Event) -> bool:
    """True once the pages answer; False when the person stopped before."""
    from feedback_app.supervisor import answers

    local = settings.model_copy(update={"public_url": ""})
    while not asked.wait(0.1):
        processes.check()
        if answers(f"{local.url}/healthz"):
            return True
    return False


def _greet(settings: Settings, links: dict[str, str], as_json: bool) -> None:
    lines: list[Any] = ["", f"The feedback app runs on {settings.url}", ""]
    if links:
        lines += ["One-time login links:"]
        lines += [f"  {name:<10} {link}" for name, link in links.items()]
        lines += [
            "",
            f"Each link works once, within {settings.link_hours:g} hours. New ones: feedback-app user passwd NAME",
        ]
    else:
        lines += ["Sign in there. A way in for somebody: feedback-app user passwd NAME"]
    lines += [f"Data: {settings.home}   Logs: {settings.logs}", "Ctrl-C stops everything.", ""]
    emit({"url": settings.url, "links": links, "home": settings.home}, as_json, *lines)


def _log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for chatty in ("alembic", "apscheduler", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
