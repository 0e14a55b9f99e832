"""Headers, origins, sizes, and which routes exist at all."""

from __future__ import annotations

import pytest
from starlette.routing import Mount

from storage.enums import Role

PATHS = [
    "/",
    "/login",
    "/healthz",
    "/static/pages.css",
    "/static/none",
    "/nowhere",
    "/annotate/",
    "/annotate/config",
    "/operate/",
    "/operate/gradio_api/info",
    "/exports/p/preference.jsonl",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", [None, Role.ANNOTATOR, Role.OPERATOR])
def test_every_answer_carries_the_security_headers(house, client, as_user, path, role):
    browser = as_user(house.person(role)) if role else client
    for answer in (browser.get(path, headers={"origin": "https://evil.example"}), browser.post(path)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "img-src 'self' data: blob:" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        # Gradio would reflect any origin, with credentials.
        assert "access-control-allow-origin" not in answer.headers
        if not path.startswith(("/annotate", "/operate")):
            assert "script-src 'none'" in policy


@pytest.mark.parametrize("path", ["/login", "/logout", "/set-password", "/login/link/x", "/operate/gradio_api/run/0"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
    ],
)
def test_a_post_from_another_site_is_refused(house, as_user, path, headers):
    assert as_user(house.person(Role.OPERATOR)).post(path, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://testserver"}, {}])
def test_a_post_from_our_own_page_passes(house, as_user, headers):
    assert as_user(house.person()).post("/logout", headers=headers).status_code == 303


def test_a_large_body_is_refused_whether_announced_or_not(house, client, as_user):
    assert client.post("/login", content=b"x" * 20_000).status_code == 413

    def chunks():
        for _ in range(5):
            yield b"x" * 5_000

    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/login", content=chunks(), headers=form).status_code == 413
    operator = as_user(house.person(Role.OPERATOR))
    limit = house.settings.max_upload_mb * 2**20
    large = operator.post("/operate/gradio_api/upload", files={"files": b"x" * (limit + 2**20)})
    assert large.status_code == 413


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_nothing_describes_the_application(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "inner",
    [
        "gradio_api/vibe-code/",
        "gradio_api/call/x",
        "gradio_api/file=/etc/passwd",
        "gradio_api/proxy=http://x",
        "gradio_api/token",
        "gradio_api/process_recording",
        "monitoring",
        "login",
        "logout",
    ],
)
@pytest.mark.parametrize("page", ["annotate", "operate"])
def test_routes_of_gradio_that_no_page_uses_are_not_there(house, as_user, page, inner):
    admin = as_user(house.person(Role.ADMIN))
    assert admin.get(f"/{page}/{inner}").status_code == 404
    assert admin.post(f"/{page}/{inner}").status_code == 404


def test_uploads_are_for_the_operate_page_only(house, as_user):
    operator = as_user(house.person(Role.OPERATOR))
    assert operator.post("/annotate/gradio_api/upload", files={"files": b"x"}).status_code == 404
    assert operator.post("/operate/gradio_api/upload", files={"files": b"x"}).status_code == 200


def test_the_upload_folder_is_private(house):
    assert (house.settings.home / "tmp" / "uploads").stat().st_mode & 0o077 == 0


def test_health_and_sign_in_need_no_session(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/login").status_code == 200


def test_asking_a_page_to_start_again_neither_starts_nor_ends_its_queue(house, as_user):
    operator = as_user(house.person(Role.OPERATOR))
    mounts = [route for route in house.app.routes if isinstance(route, Mount)]
    pages = {mount.path: mount.app for mount in mounts if hasattr(mount.app, "get_blocks")}
    assert set(pages) == {"/annotate", "/mine", "/play", "/operate"}
    for path, page in pages.items():
        answer = operator.get(f"{path}/gradio_api/startup-events")
        assert (answer.status_code, answer.json()) == (200, False)
        assert not page.get_blocks()._queue.stopped
