"""Label Studio beside us: its submit, its next task and its export, on the same machine with the same load.

It is no dependency: whoever wants the comparison installs it elsewhere and names that environment's Python. It runs as
its own `label-studio start` on SQLite; people are signed-in browsers as its pages are, with cookie and CSRF token.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks._load import Spec
from benchmarks._served import Measured, run_load
from feedback_app.supervisor import free_port

_NAME, _SECRET = "bench@example.com", "Bench-secret-1"
_LABELS = """<View><Pairwise name="pw" toName="a,b"/><Text name="a" value="$a"/><Text name="b" value="$b"/>
<TextArea name="critique" toName="a"/></View>"""
_PATIENCE = 900.0  # its first start makes some hundred tables, which took over three minutes beside other programs


@contextmanager
def label_studio(python: Path, folder: Path) -> Iterator[httpx.Client]:
    """`label-studio start` on an empty folder; yields a signed-in client."""
    port = free_port("127.0.0.1", 0)
    address = f"http://127.0.0.1:{port}"
    log = (folder / "label-studio.log").open("w")
    command = [str(python.parent / "label-studio"), "start", "--port", str(port), "--data-dir", str(folder / "data")]
    command += ["--username", _NAME, "--password", _SECRET, "--no-browser", "--log-level", "WARNING"]
    environment = {**os.environ, "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": ""}
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    try:
        with httpx.Client(base_url=address, trust_env=False, timeout=120, follow_redirects=True) as client:
            _wait(client, process, folder)
            _sign_in(client)
            yield client
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if client.get("/user/login/").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start: {(folder / 'label-studio.log').read_text()[-2000:]}")
        time.sleep(0.5)


def _sign_in(client: httpx.Client) -> None:
    client.get("/user/login/")
    sent = {"email": _NAME, "password": _SECRET, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    client.post("/user/login/", data=sent, headers={"referer": str(client.base_url)})
    client.headers["x-csrftoken"] = client.cookies["csrftoken"]


def neighbour(python: Path, folder: Path, tasks: int, people: int, seconds: float) -> tuple[Measured, dict[str, Any]]:
    """Import tasks, submit without a pause, ask for next tasks, export all."""
    with label_studio(python, folder) as client:
        made = client.post("/api/projects", json={"title": "bench", "label_config": _LABELS})
        made.raise_for_status()
        project = made.json()["id"]
        texts = "your parcel order refund invoice is late broken today tomorrow sorry " * 4
        for start in range(0, tasks, 2_500):
            rows = [
                {"data": {"a": f"{texts}{n}", "b": f"{texts}{-n}"}} for n in range(start, min(start + 2_500, tasks))
            ]
            client.post(f"/api/projects/{project}/import", json=rows).raise_for_status()
        listed = client.get("/api/tasks", params={"project": project, "page_size": 1}).json()["tasks"]
        cookies = "; ".join(f"{key}={value}" for key, value in client.cookies.items())
        credentials = [f"{cookies}\r\nx-csrftoken: {client.cookies['csrftoken']}"] * people
        assert client.base_url.port is not None
        spec = Spec(
            "label-studio", client.base_url.port, seconds, min(2.0, seconds / 4), "/api/tasks", credentials,
            first=min(one["id"] for one in listed), limit=tasks - people,
        )  # fmt: skip
        got = run_load(folder, spec)
        asked = []
        for _ in range(20):
            begun = time.perf_counter()
            client.get(f"/api/projects/{project}/next").raise_for_status()
            asked.append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        exported = client.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}, timeout=600)
        exported.raise_for_status()
        count = len(json.loads(exported.content))
        took = time.perf_counter() - begun
    return got, {
        "tasks": tasks,
        "next task, median ms, one person": round(sorted(asked)[10], 1),
        "exported tasks/s, JSON": round(count / took, 1),
        "exported": count,
    }
