"""What /compare looks like; rendered by `feedback_app.pages.plain`."""

_TABLE = """{% macro side_by_side(title, head, rows) %}
<div class="scroll of-{{ head | length }}" tabindex="0" role="region" aria-label="{{ title }}"><table>
<thead><tr><td></td>{% for one in head %}<th scope="col"><span class="swatch line-{{ loop.index0 }}"></span>
<a href="{{ one.link }}">{{ one.name }}</a></th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr><th scope="row">{{ row.name }}</th>
{% for cell in row.cells %}<td>{{ cell.value }}{% for line in cell.lines %}<br>
<span class="muted">{{ line }}</span>{% endfor %}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
{% endmacro %}"""

TEMPLATES = {
    "compare": _TABLE
    + """{% extends "frame" %}{% block content %}
<link rel="stylesheet" href="/static/review.css"><link rel="stylesheet" href="/static/lineage.css">
<link rel="stylesheet" href="/static/compare.css">
<details class="compare"{{ " open" if not found }}><summary>{{ t("Choose versions") }}</summary>
<form method="get" action="{{ address }}"><fieldset><legend>{{ t("Two to four of one kind") }}</legend>
<div class="versions">{% for one in choices %}
<label class="check"><input type="checkbox" name="v" value="{{ one.name }}"{{ " checked" if one.chosen }}>
{{ one.name }} <span class="muted">{{ one.status }}</span></label>{% endfor %}</div></fieldset>
<button type="submit" class="small">{{ t("Compare") }}</button></form></details>
{% if found %}
<section><h2>{{ t("On prompts that never train") }}</h2>
{{ side_by_side(t("On prompts that never train"), head, found.states) }}
{% for line in found.notes %}<p class="muted">{{ line }}</p>{% endfor %}
{% for one in found.seeds %}<h3>{{ one.title }}</h3>
{% if one.empty %}<p class="muted">{{ one.empty }}</p>{% else %}
<div class="scroll of-4" tabindex="0" role="region" aria-label="{{ one.title }}"><table>
<thead><tr><td></td><th scope="col">{{ t("mean") }}</th><th scope="col">{{ t("standard deviation") }}</th>
<th scope="col">{{ t("range") }}</th><th scope="col">{{ t("n") }}</th></tr></thead>
<tbody>{% for row in one.rows %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endif %}{% endfor %}
</section>
{% if found.trained %}<section><h2>{{ t("What training found") }}</h2>
{{ side_by_side(t("What training found"), head, found.trained) }}</section>{% endif %}
{% if found.curves %}<section><h2>{{ t("Training curves") }}</h2>
<p class="legend">{% for one in head %}<span><span class="swatch line-{{ loop.index0 }}"></span> {{ one.name }}</span>
{% endfor %}<span class="muted">{{ t("thin: training rows, thick: held-out rows") }}</span></p>
<div class="plots">{% for one in found.curves %}<figure><figcaption>{{ one.title }}</figcaption>{{ one.svg }}</figure>
{% endfor %}</div></section>{% endif %}
{% if policies %}<section id="texts"><h2>{{ t("What they write for the same prompts") }}</h2>
{% for row in texts %}<article><p class="asked">{{ row.prompt }}</p><div class="texts">{% for one in row.texts %}
<div><h3><span class="swatch line-{{ loop.index0 }}"></span> {{ one.name }}</h3>
{% if one.text is none %}<p class="muted">{{ t("nothing yet") }}</p>{% else %}<p class="text">{{ one.text }}</p>
{% endif %}{% if one.chance %}<p class="muted">{{ one.chance }}</p>{% endif %}</div>{% endfor %}</div></article>
{% else %}<p class="muted">{{ t("No prompt has completions of two of them yet.") }}</p>{% endfor %}
{% if probabilities %}<p class="muted">{{ probabilities }}</p>{% endif %}
{% if older %}<p class="hint"><a href="{{ older }}">{{ t("Show more prompts") }}</a></p>{% endif %}</section>{% endif %}
<section><h2>{{ t("How they were trained") }}</h2>
{% if found.settings %}{{ side_by_side(t("How they were trained"), head, found.settings) }}{% endif %}
<p class="muted">{{ found.alike }}</p></section>
<section><h2>{{ t("What they were trained on") }}</h2>
{% for one in found.data %}<h3>{{ one.title }}</h3><p>{{ one.told }}</p>
{% for line in one.settings %}<p class="muted">{{ line }}</p>{% endfor %}
{% if one.rows %}<ul class="changes">{% for row in one.rows %}<li class="{{ row.kind }}"><b>{{ row.label }}</b>
{{ row.prompt }}<br><span class="muted">{% for cause in row.causes %}{% if cause.link %}<a href="{{ cause.link }}">
{{- cause.told }}</a>{% else %}{{ cause.told }}{% endif %}{{ " · " if not loop.last }}{% endfor %}</span></li>
{% endfor %}</ul>{% endif %}{% if one.more %}<p class="muted">{{ one.more }}</p>{% endif %}{% endfor %}</section>
{% endif %}
<p class="hint"><a href="/operate/">{{ t("Back to work") }}</a></p>
{% endblock %}""",
}
