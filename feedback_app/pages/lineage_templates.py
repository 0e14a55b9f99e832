"""What /lineage looks like; rendered by `feedback_app.pages.plain`."""

_ROW = """{% macro feedback(row) %}
<p class="from">{% for said in row.annotations %}
<a href="/lineage/annotation/{{ said.id }}"{% if said.gone %} class="gone"{% endif %}>{{ said.label }}</a>
{% if said.gone %}<span class="tag bad">{{ said.gone }}</span>{% endif %}{% endfor %}
{% for label in row.more %}<span class="muted">{{ label }}</span> {% endfor %}</p>
{% for one in row.critiques %}<blockquote>{% if one.text %}<p class="text">{{ one.text }}</p>{% endif %}
{% if one.fix %}<p class="text"><b>{{ t("Better:") }}</b> {{ one.fix }}</p>{% endif %}
{% for tag in one.tags or () %}<span class="tag">{{ tag }}</span> {% endfor %}</blockquote>{% endfor %}
{% endmacro %}"""

TEMPLATES = {
    "lineage": _ROW
    + """{% extends "frame" %}{% block content %}
<link rel="stylesheet" href="/static/review.css"><link rel="stylesheet" href="/static/lineage.css">
{% if tainted %}<div class="taint" role="status"><p>{{ tainted.told }}</p>
{% if tainted.link %}<p><a href="{{ tainted.link }}">{{ tainted.rebuilt }}</a></p>
{% elif tainted.rebuilt %}<p>{{ tainted.rebuilt }}</p>
{% else %}<form method="post" action="{{ address }}/rebuild">
<button type="submit" id="rebuild">{{ t("Train it again without them") }}</button></form>
<p class="muted">{{ t("The same recipe, settings and seed, on a new snapshot.") }}</p>{% endif %}</div>{% endif %}
<section class="lineage"><h2>{{ t("The loop it came round") }}</h2>
<ol class="loop">{% for one in stations %}<li class="{{ one.kind }}"><h3>{{ one.title }}</h3>
<p class="figure">
{%- if one.link %}<a href="{{ one.link }}">{{ one.figure }}</a>{% else %}{{ one.figure }}{% endif %}</p>
{% for line in one.lines %}<p class="muted">{{ line }}</p>{% endfor %}
{% if one.bad %}<p class="bad">{{ one.bad }}</p>{% endif %}</li>{% endfor %}</ol></section>
{% if download %}<p class="hint"><a href="{{ download }}">
{{- t("Download the adapter with its model card") }}</a></p>{% endif %}
<section><h2>{{ t("What it was trained from") }}</h2>
<ol class="chain">{% for one in chain %}<li><a href="{{ one.link }}">{{ one.name }}</a>
{% for tag in one.tags %}<span class="tag{{ ' bad' if tag.bad }}">{{ tag.label }}</span> {% endfor %}
<br><span class="muted">{{ one.how }}</span></li>{% endfor %}</ol></section>
{% if rows is not none %}<section id="rows"><h2>{{ t("What trained it, row by row") }}</h2>
<p class="pick">{% for one in picks %}<a href="{{ one.link }}"{% if one.here %} aria-current="page"{% endif %}>
{{- one.label }}</a>{% endfor %}</p>
<ol class="taught">{% for row in rows %}<li><p class="asked">{{ row.prompt }}</p>
<p class="muted">{{ row.facts }}</p>{{ feedback(row) }}
{% if row.chance %}<p class="muted">{{ row.chance }}</p>{% endif %}
<details><summary>{{ t("Show the completions") }}</summary><p class="muted">{{ t("The chosen one") }}</p>
<p class="text">{{ row.chosen }}</p>
{% if row.rejected is not none %}<p class="muted">{{ t("The rejected one") }}</p>
<p class="text">{{ row.rejected }}</p>{% endif %}
</details></li>{% else %}<li class="muted">{{ t("No rows.") }}</li>{% endfor %}</ol>
{% if probabilities %}<p class="muted">{{ probabilities }}</p>{% endif %}
<p class="hint">{% if older %}<a href="{{ older }}">{{ t("Show more rows") }}</a> · {% endif %}
{% if later %}<a href="{{ later }}">{{ t("Back to the first rows") }}</a> · {% endif %}
<a href="/operate/">{{ t("Back to work") }}</a></p></section>
{% else %}<p class="hint"><a href="/operate/">{{ t("Back to work") }}</a></p>{% endif %}{% endblock %}""",
    "traced": _ROW
    + """{% extends "frame" %}{% block content %}
<link rel="stylesheet" href="/static/review.css"><link rel="stylesheet" href="/static/lineage.css">
{% if gone %}<div class="taint" role="status"><p>{{ gone }}</p></div>{% endif %}
<section class="lineage"><h2>{{ t("What it was about") }}</h2>
<p class="asked">{{ prompt }}</p>{{ feedback(row) }}
{% for one in compared %}<div class="sides"><div><h3>A</h3><p class="text">{{ one.a }}</p></div>
<div><h3>B</h3><p class="text">{{ one.b }}</p></div></div>
<p><b>{{ one.said }}</b>{% if one.chance %}<br><span class="muted">{{ one.chance }}</span>{% endif %}</p>{% endfor %}
{% if probabilities %}<p class="muted">{{ probabilities }}</p>{% endif %}
{% if not row.critiques and not row.more %}<p class="muted">{{ t("A judgement without written words.") }}</p>{% endif %}
</section>
<section><h2>{{ t("What learned from it") }}</h2>
{% if learned %}<ol class="chain">{% for one in learned %}<li><a href="{{ one.link }}">{{ one.name }}</a>
{% for tag in one.tags %}<span class="tag{{ ' bad' if tag.bad }}">{{ tag.label }}</span> {% endfor %}
<br><span class="muted">{{ one.how }}</span></li>{% endfor %}</ol>
{% else %}<p class="muted">{{ t("No version so far.") }}</p>{% endif %}
{% for line in unused %}<p class="muted">{{ line }}</p>{% endfor %}</section>
<p class="hint">{% if newer %}<a href="/lineage/annotation/{{ newer }}">{{ t("What it says now") }}</a> · {% endif %}
<a href="/operate/">{{ t("Back to work") }}</a></p>
{% endblock %}""",
}
