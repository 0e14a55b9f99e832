"""Server-rendered pages that work without JavaScript: sign in, one-time link, choose a password, a notice."""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader, Environment
from starlette.responses import HTMLResponse

_TEMPLATES = {
    "frame": """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{{ title }} · Feedback</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/tokens.css">
<link rel="stylesheet" href="/static/plain.css">
</head>
<body>
<main class="card">
<div class="brand"><img src="/static/icon.svg" alt="" width="28" height="28"><span>Feedback</span></div>
<h1>{{ title }}</h1>
{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% if problem %}<p class="problem" role="alert">{{ problem }}</p>{% endif %}
{% block content %}{% endblock %}
</main>
</body>
</html>""",
    "login": """{% extends "frame" %}{% block content %}
<form method="post" action="/login">
<input type="hidden" name="next" value="{{ next or '' }}">
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" autocapitalize="none" spellcheck="false"
  maxlength="120" required value="{{ name or '' }}"{% if not name %} autofocus{% endif %}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000" required
  {%- if name %} autofocus{% endif %}>
<button type="submit">Sign in</button>
</form>
<p class="hint">No account, or password lost? An operator can give you a one-time link.</p>
{% endblock %}""",
    "link": """{% extends "frame" %}{% block content %}
<form method="post" action=""><button type="submit" autofocus>Continue</button></form>
<p class="hint">The link works once. If you did not ask for it, close this page.</p>
{% endblock %}""",
    "password": """{% extends "frame" %}{% block content %}
<form method="post" action="/set-password">
<input type="hidden" name="username" autocomplete="username" value="{{ name }}">
{% if ask_current %}<label for="current">Current password</label>
<input id="current" name="current" type="password" autocomplete="current-password" maxlength="1000" required autofocus>
{% endif %}<label for="password">New password</label>
<input id="password" name="password" type="password" autocomplete="new-password" minlength="{{ minimum }}"
  maxlength="1000" required{% if not ask_current %} autofocus{% endif %}>
<label for="again">The same again</label>
<input id="again" name="again" type="password" autocomplete="new-password" minlength="{{ minimum }}"
  maxlength="1000" required>
<button type="submit">Save password</button>
</form>
<p class="hint">At least {{ minimum }} characters; a sentence is easy to remember.
{% if can_skip %}<a href="/">Not now</a>{% endif %}</p>
{% endblock %}""",
    "notice": """{% extends "frame" %}{% block content %}
<p class="actions">
{% for label, address in links %}<a class="button" href="{{ address }}">{{ label }}</a>{% endfor %}
</p>
{% if sign_out %}
<form method="post" action="/logout"><button class="quiet" type="submit">Sign out</button></form>
{% endif %}
{% endblock %}""",
}

_environment = Environment(loader=DictLoader(_TEMPLATES), autoescape=True, trim_blocks=True)


def page(template: str, title: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render `template` (login, link, password, notice) with `values`; everything is escaped."""
    return HTMLResponse(_environment.get_template(template).render(title=title, **values), status)
