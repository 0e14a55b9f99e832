"""Server-rendered pages that work without JavaScript: sign in, one-time link, password, one's account, a notice."""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader, Environment
from starlette.responses import HTMLResponse

from feedback_app.i18n import LANGUAGES, reader, t
from feedback_app.pages import compare_templates, lineage_templates, review_templates

_TEMPLATES = {
    "frame": """<!doctype html>
<html lang="{{ reader().language }}">
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
<main class="card{{ ' wide' if wide }}">
<div class="brand"><img src="/static/icon.svg" alt="" width="28" height="28"><span>Feedback</span></div>
<h1>{{ title }}</h1>
{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% if problem %}<p class="problem" role="alert">{{ problem }}</p>{% endif %}
{% block content %}{% endblock %}
{% if here %}<form method="post" action="/language" class="languages">
<input type="hidden" name="next" value="{{ here }}">
{% for code, label in LANGUAGES.items() %}
<button class="small quiet" name="language" value="{{ code }}" lang="{{ code }}"
  aria-pressed="{{ 'true' if code == reader().language else 'false' }}">{{ label }}</button>
{% endfor %}</form>{% endif %}
</main>
</body>
</html>""",
    "login": """{% extends "frame" %}{% block content %}
<form method="post" action="/login">
<input type="hidden" name="next" value="{{ next or '' }}">
<label for="name">{{ t("Name") }}</label>
<input id="name" name="name" autocomplete="username" autocapitalize="none" spellcheck="false"
  maxlength="120" required value="{{ name or '' }}"{% if not name %} autofocus{% endif %}>
<label for="password">{{ t("Password") }}</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000" required
  {%- if name %} autofocus{% endif %}>
<button type="submit">{{ t("Sign in") }}</button>
</form>
{% if provider %}<p class="or"><span>{{ t("or") }}</span></p>
<a class="button other" href="/login/oidc{{ '?next=' + (next | urlencode) if next }}">
{{- t("Sign in with {provider}", provider=provider) }}</a>
{% endif %}
<p class="hint">{{ t("No account, or password lost? An operator can give you a one-time link.") }}</p>
{% endblock %}""",
    "link": """{% extends "frame" %}{% block content %}
<form method="post" action=""><button type="submit" autofocus>{{ t("Continue") }}</button></form>
<p class="hint">{{ t("The link works once. If you did not ask for it, close this page.") }}</p>
{% endblock %}""",
    "password": """{% extends "frame" %}{% block content %}
<form method="post" action="/set-password">
<input type="hidden" name="username" autocomplete="username" value="{{ name }}">
{% if ask_current %}<label for="current">{{ t("Current password") }}</label>
<input id="current" name="current" type="password" autocomplete="current-password" maxlength="1000" required autofocus>
{% endif %}<label for="password">{{ t("New password") }}</label>
<input id="password" name="password" type="password" autocomplete="new-password" minlength="{{ minimum }}"
  maxlength="1000" required{% if not ask_current %} autofocus{% endif %}>
<label for="again">{{ t("The same again") }}</label>
<input id="again" name="again" type="password" autocomplete="new-password" minlength="{{ minimum }}"
  maxlength="1000" required>
<button type="submit">{{ t("Save password") }}</button>
</form>
<p class="hint">{{ t("At least {minimum} characters; a sentence is easy to remember.", minimum=minimum) }}
{% if can_skip %}<a href="/">{{ t("Not now") }}</a>{% endif %}</p>
{% endblock %}""",
    "account": """{% extends "frame" %}{% block content %}
<section><h2>{{ t("Sign-in") }}</h2>
{% if view.by_provider %}<p>{{ t("You sign in through your organisation.") }}</p>
{% else %}<p><a href="/set-password">{{ t("Change password") if view.has_password else t("Choose a password") }}</a></p>
{% endif %}</section>
<section><h2>{{ t("Language") }}</h2>
<form method="post" action="/account/language" class="line">
<label for="language" class="unseen">{{ t("Language of the pages") }}</label>
<select id="language" name="language">
{% for code, label in languages.items() %}
<option value="{{ code }}"{{ " selected" if code == view.language }}>{{ label }}</option>
{% endfor %}
</select><button class="small" type="submit">{{ t("Save") }}</button></form></section>
<section><h2>{{ t("Where you are signed in") }}</h2>
<ul class="rows">
{% for one in sessions %}<li><div><b>{{ one.device }}</b>
{% if one.here %}<span class="tag">{{ t("this browser") }}</span>{% endif %}<br>
<span class="muted">{{ one.address }}{{ " · " if one.address }}{{ t("seen {when}", when=one.seen) }} ·
<span class="keep">{{ t("since {day}", day=one.since) }}</span></span>
</div>
<form method="post" action="/account/sessions/end"><input type="hidden" name="session" value="{{ one.id }}">
<button class="small quiet" type="submit" aria-label="{{ t("Sign out {device}", device=one.device) }}">
{{- t("Sign out") }}</button></form></li>
{% endfor %}
</ul>
<form method="post" action="/account/sessions/end-all">
<button class="small quiet" type="submit">{{ t("Sign out everywhere") }}</button></form></section>
<section id="tokens"><h2>{{ t("API tokens") }}</h2>
<p class="muted">{{ t("A program with one of these acts as you, within its scopes.") }}</p>
{% if view.made %}<div class="made" role="status"><b>{{ t("Copy it now: it is not shown again.") }}</b>
<code id="made">{{ view.made }}</code></div>{% endif %}
{% if tokens %}<ul class="rows">
{% for one in tokens %}<li><div><b><bdi>{{ one.name }}</bdi></b>
<span class="tag {{ one.kind }}">{{ one.state }}</span><br>
<span class="muted">{{ one.scopes }} · <bdi>{{ one.project }}</bdi> ·
<span class="keep">{{ one.until }}</span> · {{ one.used }}</span>
</div>
{% if one.live %}<form method="post" action="/account/tokens/revoke">
<input type="hidden" name="token" value="{{ one.id }}">
<button class="small quiet" type="submit" aria-label="{{ t("Revoke {name}", name=one.name) }}">
{{- t("Revoke") }}</button></form>{% endif %}</li>
{% endfor %}</ul>{% else %}<p class="muted">{{ t("None yet.") }}</p>{% endif %}
<details{{ " open" if asked }}><summary>{{ t("Make a token") }}</summary>
<form method="post" action="/account/tokens">
<label for="token-name">{{ t("What is it for?") }}</label>
<input id="token-name" name="name" maxlength="120" required autocomplete="off" value="{{ asked.name if asked }}">
<fieldset><legend>{{ t("It may") }}</legend>
{% for value, label in scopes.items() %}
<label class="check"><input type="checkbox" name="scope" value="{{ value }}"
  {{- " checked" if asked and value in asked.scope }}> {{ label }}</label>
{% endfor %}</fieldset>
<label for="token-project">{{ t("In") }}</label>
<select id="token-project" name="project"><option value="">{{ t("all my projects") }}</option>
{% for name in view.projects.values() %}<option{{ " selected" if asked and asked.project == name }}>{{ name }}</option>
{% endfor %}</select>
<label for="token-days">{{ t("For") }}</label>
<select id="token-days" name="days">{% for days in lifetimes %}
<option value="{{ days }}"{{ " selected" if days == 90 }}>
{{- t("{days} days", days=days) if days else t("ever, until revoked") }}</option>
{% endfor %}</select>
<button type="submit">{{ t("Make token") }}</button></form></details></section>
<p class="hint"><a href="/">{{ t("Back to work") }}</a></p>
{% endblock %}""",
    "notice": """{% extends "frame" %}{% block content %}
<p class="actions">
{% for label, address in links %}<a class="button" href="{{ address }}">{{ label }}</a>{% endfor %}
</p>
{% if sign_out %}
<form method="post" action="/logout"><button class="quiet" type="submit">{{ t("Sign out") }}</button></form>
{% endif %}
{% endblock %}""",
}

_rooms = (review_templates, lineage_templates, compare_templates)
_loader = DictLoader(_TEMPLATES | {name: text for room in _rooms for name, text in room.TEMPLATES.items()})
_environment = Environment(loader=_loader, autoescape=True, trim_blocks=True)
_environment.globals.update(t=t, reader=reader, LANGUAGES=LANGUAGES)


def page(template: str, title: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render `template` (login, link, password, account, notice) with `values`; everything is escaped.

    `here` among them is the page's own path: it then lets choose the language, for those who have no account yet.
    """
    return HTMLResponse(_environment.get_template(template).render(title=title, **values), status)
