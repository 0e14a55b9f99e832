"""The command line `feedback-app`: one file of `feedback_app.commands` a group, and how every command ends.

Exit codes: 0 done, 1 failed with a message, 2 wrong usage. What a person can mend is one line on stderr, and with
--json one object {"error": …} on stdout as well. Any other failure leaves its traceback in the log folder.
Modules import what they need inside their commands: `feedback-app --help` must not wait for SQLAlchemy.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from feedback_app.commands import (
    backup,
    blind_test,
    data,
    db,
    demo,
    doctor,
    evaluate,
    gate,
    gold,
    models,
    monitor,
    projects,
    quality,
    rules,
    runs,
    serve,
    snapshots,
    tokens,
    train,
    users,
    webhooks,
)
from feedback_app.commands.shared import say
from storage.errors import FeedbackError

# Nothing calls home, and models come from this machine, unless the environment says otherwise.
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False"}

app = typer.Typer(
    name="feedback-app",
    help="Collect ratings, comparisons and critiques of a model's completions, train on them, promote what got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are environment variables (FEEDBACK_HOME is the data folder); `feedback-app doctor` shows them.",
)
app.command()(serve.up)
app.command()(serve.web)
app.command()(serve.worker)
app.add_typer(db.app, name="db")
app.command(name="import")(data.import_file)
app.command()(data.export)
app.command()(quality.quality)
app.command()(train.train)
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.add_typer(snapshots.app, name="snapshots")
users.app.add_typer(tokens.app, name="token")
app.add_typer(users.app, name="user")
app.add_typer(projects.app, name="project")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(gold.app, name="gold")
app.add_typer(rules.app, name="rules")
app.command()(evaluate.evaluate)
app.command()(gate.gate)
app.command()(monitor.monitor)
app.add_typer(blind_test.app, name="blind-test")
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(demo.demo)
app.command()(doctor.doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in NO_NETWORK.items():
        os.environ.setdefault(name, value)
    as_json = "--json" in arguments
    try:
        code = app(args=arguments, prog_name="feedback-app", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(_usage_line(error), as_json, error.exit_code)
    except FeedbackError as error:
        return _fail(str(error), as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped", as_json)
    except BrokenPipeError:  # the reader of our output went away, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last line of defence: keep the traceback, say one line
        return _fail(_explained(error), as_json)
    if code == 130:  # Ctrl-C
        return _fail("stopped", as_json)
    return code if isinstance(code, int) else 0


def _fail(line: str, as_json: bool, code: int = 1) -> int:
    line = " ".join(line.split())
    say(f"error: {line}")
    if as_json:
        print(json.dumps({"error": line}), flush=True)
    return code


def _usage_line(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # its help stands on the screen already
        message = "give a command"
    where = context.command_path if context else "feedback-app"
    return f"{message.replace('Value error, ', '').rstrip('.')}; see: {where} --help"


def _explained(error: Exception) -> str:
    from storage.engine import explain

    return explain(error) or f"{type(error).__name__}: {error} (this is a fault of the program; {_keep_traceback()})"


def _keep_traceback() -> str:
    from feedback_app.settings import load_settings

    text = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {' '.join(sys.argv)}\n{traceback.format_exc()}\n"
    try:
        folder = load_settings().logs
        folder.mkdir(parents=True, exist_ok=True)
    except (FeedbackError, OSError):
        folder = Path(tempfile.gettempdir())
    path = folder / "errors.log"
    try:
        with path.open("a") as file:
            file.write(text)
    except OSError:
        return text
    return f"its traceback stands in {path}"
