"""A person without a mouse, for browser tests."""

from __future__ import annotations

from typing import Any

import pytest

# Whether whoever has the focus can be seen to have it: an outline around it, or around what stands for a hidden input.
RING = """
  const rings = (node) => node && getComputedStyle(node).outlineStyle !== "none"
    && parseFloat(getComputedStyle(node).outlineWidth) >= 1.5;
  const here = document.activeElement;
  if (here === document.body) return null; // between the last stop and the first
  const told = (what) => `${what}: ${here.outerHTML.slice(0, 160)}`;
  const box = (here.closest("label") ?? here).getBoundingClientRect();
  if (box.right <= 0 || box.bottom <= 0 || box.left >= innerWidth || box.top >= innerHeight) return told("out of view");
  const bar = document.getElementById("fb-actions");
  const covered = bar?.checkVisibility() && !bar.contains(here) && box.top >= bar.getBoundingClientRect().top;
  if (covered) return told("under the bar");
  return [here, here.nextElementSibling, here.closest("label")].some(rings) ? null : told("no ring");
"""
# One step on the way round: what has the focus now, null when it had it before, and whether that can be seen.
STEP = f"""() => {{
  const unseen = (() => {{ {RING} }})();
  const e = document.activeElement;
  if (e === document.body || window.crawled.has(e)) return null;
  window.crawled.add(e);
  return [e.ariaLabel || e.textContent.trim().slice(0, 30) || e.id || e.tagName, unseen];
}}"""


class Keyboard:
    """A person without a mouse: presses keys, and never loses sight of the focus."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.unseen: set[str] = set()
        self.presses = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.presses += 1

    def write(self, text: str) -> None:
        self.page.keyboard.type(text)
        self.presses += len(text)

    def at(self, selector: str) -> bool:
        return bool(self.page.evaluate("where => document.activeElement.matches(where)", selector))

    def tab_to(self, selector: str, key: str = "Tab", most: int = 60) -> None:
        """Press Tab (or Shift+Tab) until `selector` has the focus."""
        for _ in range(most):
            self.press(key)
            if self.at(selector):
                self.look()
                return
            self.look()
        pytest.fail(f"{most} times {key} did not reach {selector}")

    def look(self) -> None:
        if unseen := self.page.evaluate(f"() => {{ {RING} }}"):
            self.unseen.add(unseen)

    def to_top(self) -> None:
        """Nothing has the focus; the next Tab goes to the first stop."""
        self.page.evaluate(
            "window.crawled = new Set(); document.activeElement.blur(); getSelection().collapse(document.body, 0);"
            " scrollTo(0, 0)"
        )

    def round_trip(self, most: int = 80) -> list[str]:
        """Press Tab from the top until the document is left: every stop once, in order; a trap fails."""
        self.to_top()
        stops: list[str] = []
        for _ in range(most):
            self.press("Tab")
            step = self.page.evaluate(STEP)
            if step is None:
                return stops
            stop, unseen = step
            if unseen:
                self.unseen.add(unseen)
            stops.append(stop)
        pytest.fail(f"no way out after {most} stops: {stops[-10:]}")
