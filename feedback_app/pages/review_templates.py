"""What /questions and /critiques look like; rendered by `feedback_app.pages.plain`."""

TEMPLATES = {
    "question": """{% extends "frame" %}{% block content %}
<link rel="stylesheet" href="/static/review.css">
{% if not view.question %}
<p class="actions"><a class="button" href="/annotate/{{ link }}">{{ t("Go on annotating") }}</a></p>
{% else %}{% set q = view.question %}{% set review = q.kind == "review" %}
<section class="thread">{% for one in q.prompt %}
<div class="message {{ one.role }}"><span class="who">{{ t(one.role) }}</span>
<p class="text">{{ one.content }}</p></div>
{% endfor %}</section>
<section><h2>{{ t("The critique") if review else t("What you said") }}</h2>
{% for said in q.critiques %}<blockquote>
{% if said.span_start is not none %}<p class="quoted"><mark>{{ q.old[said.span_start:said.span_end] }}</mark></p>
{% endif %}{% if said.text %}<p class="text">{{ said.text }}</p>{% endif %}
{% if said.fix %}<p class="text"><b>{{ t("Better:") }}</b> {{ said.fix }}</p>{% endif %}
{% for tag in said.tags %}<span class="tag">{{ tag }}</span> {% endfor %}</blockquote>{% endfor %}</section>
<section class="sides"><div><h2>{{ t("Before") }}</h2><p class="text" id="old">{{ q.old }}</p></div>
<div><h2>{{ t("Rewritten by a model") if review else t("Now") }}</h2>
<p class="text" id="new">{{ q.new }}</p></div></section>
<details class="changes"{{ " open" if review }}><summary>{{ t("Show what changed") }}</summary>
<p class="text">{% for piece in view.changes %}{% if piece.kind == "gone" %}<del>{{ piece.text }}</del>
{%- elif piece.kind == "new" %}<ins>{{ piece.text }}</ins>{% else %}{{ piece.text }}{% endif %}{% endfor %}</p>
</details>
{% if thinks %}<details class="changes">
<summary>{{ t("What the reward model says (better read after answering)") }}</summary>
{% for line in thinks %}<p class="muted">{{ line }}</p>{% endfor %}</details>{% endif %}
<form method="post" action="/questions/answer" class="answers">
<input type="hidden" name="item" value="{{ q.item_id }}"><input type="hidden" name="kind" value="{{ q.kind }}">
<input type="hidden" name="project" value="{{ q.project }}">
{% for value, label in verdicts.items() %}<button class="other" name="verdict" value="{{ value }}">{{ label }}</button>
{% endfor %}</form>
{% if review %}<form method="post" action="/questions/answer">
<input type="hidden" name="item" value="{{ q.item_id }}"><input type="hidden" name="kind" value="{{ q.kind }}">
<input type="hidden" name="project" value="{{ q.project }}">
<label for="text">{{ t("Or write it as it should be") }}</label>
<textarea id="text" name="text" rows="6" maxlength="20000">{{ typed or q.new }}</textarea>
<button class="other" name="verdict" value="edited">{{ t("Save my version") }}</button></form>{% endif %}
<form method="post" action="/questions/pass" class="line">
<input type="hidden" name="item" value="{{ q.item_id }}"><input type="hidden" name="project" value="{{ q.project }}">
<button class="small quiet">{{ t("Skip") }}</button>
<a class="small quiet button" href="/annotate/{{ link }}">{{ t("Go on annotating") }}</a></form>
{% endif %}{% endblock %}""",
    "critiques": """{% extends "frame" %}{% block content %}
<link rel="stylesheet" href="/static/review.css">
{% for one in stories %}<section class="story"><p class="muted"><bdi>{{ one.project }}</bdi> · {{ one.at }}</p>
<p class="asked">{{ one.asked }}</p>
<blockquote>{% if one.quoted %}<p class="quoted"><mark>{{ one.quoted }}</mark></p>{% endif %}
{% if one.said.text %}<p class="text">{{ one.said.text }}</p>{% endif %}
{% if one.said.fix %}<p class="text"><b>{{ t("Better:") }}</b> {{ one.said.fix }}</p>{% endif %}
{% for tag in one.said.tags %}<span class="tag">{{ tag }}</span> {% endfor %}</blockquote>
<ul class="path">{% for step in one.steps %}<li class="{{ step.kind }}">{{ step.text }}
{% if step.detail %}<details><summary>{{ t("Show the text") }}</summary><p class="text">
{%- for piece in step.detail %}{% if piece.kind == "gone" %}<del>{{ piece.text }}</del>
{%- elif piece.kind == "new" %}<ins>{{ piece.text }}</ins>{% else %}{{ piece.text }}{% endif %}{% endfor %}</p>
</details>
{% endif %}</li>{% endfor %}</ul></section>
{% else %}<p class="lead">{{ t("You have not criticised anything yet.") }}</p>{% endfor %}
<p class="hint">{% if older %}<a href="/critiques?before={{ older }}">{{ t("Show older ones") }}</a> · {% endif %}
<a href="/mine/">{{ t("My annotations") }}</a> · <a href="/">{{ t("Back to work") }}</a></p>
{% endblock %}""",
}
