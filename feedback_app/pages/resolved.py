"""How far a model version resolved the critiques it was held against, in words; for the Models tab."""

from __future__ import annotations

from html import escape

from feedback_app.i18n import listed, t
from feedback_app.pages.render import Markup
from storage.enums import ResolutionVerdict
from storage.quality.shares import Share
from storage.resolution import Rates

_TAGS = 5  # shown, the most frequent first


def resolved(rates: Rates | None) -> list[tuple[str, str | Markup]]:
    """Facts about a version: the resolution rate with its interval, on held-out prompts, by tag, and what was said."""
    if rates is None:
        return []
    found: list[tuple[str, str | Markup]] = [
        (t("resolved"), _rate(rates.fixed) if rates.fixed.total else t("not judged yet"))
    ]
    if rates.held_out.total:
        found.append((t("on prompts held out"), _rate(rates.held_out)))
    if rates.by_tag:
        tags = list(rates.by_tag.items())[:_TAGS]
        found.append(
            (t("by tag"), Markup("<br>".join(f"{escape(tag)}: {escape(_rate(share))}" for tag, share in tags)))
        )
    said = [f"{t(one.value)} {rates.verdicts[one.value]}" for one in ResolutionVerdict if one.value in rates.verdicts]
    if rates.waiting:
        said.append(t("{n} not answered yet", n=rates.waiting))
    return [*found, (t("people said"), listed(said))] if said else found


def _rate(share: Share) -> str:
    low, high = share.bounds
    return t(
        "{rate} of {n} (95 %: {low} to {high})",
        rate=f"{share.value or 0.0:.0%}",
        n=share.total,
        low=f"{low:.0%}",
        high=f"{high:.0%}",
    )
