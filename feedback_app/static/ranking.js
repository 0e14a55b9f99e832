// Ranking three to eight completions: press their numbers from the best on, drag them, or move them with the arrows.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const { t } = feedback;
  const LETTERS = "ABCDEFGH";
  const DRAG = 6; // pixels before a press becomes a drag
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };

  /** An order from ranks by side: who is ranked, best first, and between which neighbours there is a tie. */
  const orderOf = (ranks) => {
    const order = ranks.map((_, side) => side).filter((side) => ranks[side] !== null);
    order.sort((one, other) => ranks[one] - ranks[other] || one - other);
    return { order, ties: order.slice(1).map((side, i) => ranks[side] === ranks[order[i]]) };
  };
  const ranksOf = ({ order, ties }, count) => {
    const ranks = new Array(count).fill(null);
    let rank = 0;
    order.forEach((side, i) => {
      if (i === 0 || !ties[i - 1]) rank += 1;
      ranks[side] = rank;
    });
    return ranks;
  };

  /** Draws the strip into `root`; `changed(ranks)` hears of every change. Gives {press, draw}. */
  feedback.ranking = (root, count, given, changed) => {
    const it = orderOf(given);
    const live = make("p", { className: "fb-unseen" });
    live.setAttribute("aria-live", "polite");
    const best = make("span", { className: "fb-end", textContent: t("Best") });
    const list = make("ol", { className: "fb-order" });
    list.setAttribute("aria-label", t("Your order, best first"));
    const rest = make("ol", { className: "fb-unranked" });
    rest.setAttribute("aria-label", t("Not ranked yet"));
    const again = make("button", { type: "button", className: "fb-plain fb-again", textContent: t("Start over") });
    again.addEventListener("click", () => {
      it.order.length = it.ties.length = 0;
      done(t("Nothing is ranked."));
    });
    root.replaceChildren(best, list, rest, again, live);

    const unranked = () => Array.from({ length: count }, (_, side) => side).filter((side) => !it.order.includes(side));
    const takeOut = (side) => {
      const at = it.order.indexOf(side);
      if (at < 0) return;
      it.order.splice(at, 1);
      it.ties.splice(Math.max(0, at - 1), 1);
    };
    const putIn = (side, at) => {
      it.order.splice(at, 0, side);
      if (it.order.length > 1) it.ties.splice(Math.max(0, at - 1), 0, false);
    };
    const done = (said, focus = null) => {
      changed(ranksOf(it, count));
      draw();
      if (focus !== null) root.querySelector(`[data-side="${focus}"]`)?.focus();
      live.textContent = said;
    };
    const told = (side) => t("{letter} is number {rank} of {count}.", { letter: LETTERS[side], rank: ranksOf(it, count)[side], count });
    const append = (side) => {
      putIn(side, it.order.length);
      const left = unranked();
      if (left.length === 1) putIn(left[0], it.order.length); // the last place is no choice
      done(told(side), side);
    };
    const move = (side, step) => {
      const at = it.order.indexOf(side);
      const to = at + step;
      if (at < 0) return append(side);
      if (to < 0 || to >= it.order.length) return;
      [it.order[at], it.order[to]] = [it.order[to], it.order[at]];
      done(told(side), side);
    };
    const tie = (at) => {
      if (at < 0 || at >= it.ties.length) return;
      it.ties[at] = !it.ties[at];
      const [one, other] = [it.order[at], it.order[at + 1]].map((side) => LETTERS[side]);
      done(it.ties[at] ? t("{one} and {other} are tied.", { one, other }) : t("{one} is better than {other}.", { one, other }), it.order[at + 1]);
    };
    const keyed = (event, side) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
      if (step) move(side, step);
      else if (event.key === "=") tie(it.order.indexOf(side) - 1);
      else if (event.key === "Backspace" || event.key === "Delete") {
        takeOut(side);
        done(t("{letter} is not ranked.", { letter: LETTERS[side] }), side);
      } else return;
      event.preventDefault();
    };

    // --- drag ---
    const nearest = (x, y) => {
      let found = null;
      for (const chip of list.querySelectorAll(".fb-chip:not(.dragged)")) {
        const box = chip.getBoundingClientRect();
        const far = Math.hypot(x - (box.left + box.width / 2), 3 * (y - (box.top + box.height / 2)));
        if (!found || far < found.far) found = { chip, far, after: x > box.left + box.width / 2 };
      }
      return found;
    };
    const draggable = (chip, side) => {
      let from = null;
      const point = (target) => {
        list.querySelectorAll(".before, .after").forEach((one) => one.classList.remove("before", "after"));
        target?.chip.classList.add(target.after ? "after" : "before");
      };
      const stop = () => {
        from = null;
        chip.classList.remove("dragged");
        chip.style.transform = "";
        point(null);
      };
      chip.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        from = { x: event.clientX, y: event.clientY, moving: false };
        chip.setPointerCapture(event.pointerId);
      });
      chip.addEventListener("pointermove", (event) => {
        if (!from) return;
        const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
        if (!from.moving && Math.hypot(dx, dy) < DRAG) return;
        from.moving = true;
        chip.classList.add("dragged");
        chip.style.transform = `translate(${dx}px, ${dy}px)`;
        point(nearest(event.clientX, event.clientY));
      });
      chip.addEventListener("pointercancel", stop);
      chip.addEventListener("pointerup", (event) => {
        const dragged = from?.moving;
        const target = dragged ? nearest(event.clientX, event.clientY) : null;
        stop();
        if (!dragged) return; // the click decides
        chip.dataset.dragged = "1";
        if (!target) return void (it.order.length === 0 && append(side));
        takeOut(side);
        putIn(side, it.order.indexOf(Number(target.chip.dataset.side)) + (target.after ? 1 : 0));
        done(told(side), side);
      });
      chip.addEventListener("click", () => {
        if (chip.dataset.dragged) return void delete chip.dataset.dragged;
        if (!it.order.includes(side)) append(side);
      });
    };

    const chipOf = (side, rank) => {
      const chip = make("button", { type: "button", className: "fb-chip" });
      chip.dataset.side = side;
      chip.append(make("kbd", { textContent: String(side + 1) }), make("b", { textContent: LETTERS[side] }));
      const letter = LETTERS[side];
      const label =
        rank === null
          ? t("{letter}, not ranked; press to give it the next place", { letter })
          : t("{letter}, number {rank} of {count}", { letter, rank, count });
      chip.setAttribute("aria-label", label);
      chip.title =
        rank === null
          ? t("Press: next place. Drag: any place.")
          : t("Drag, or arrow keys; = ties it with the one before");
      chip.addEventListener("keydown", (event) => keyed(event, side));
      draggable(chip, side);
      return make("li", {}, chip);
    };
    const gapOf = (at) => {
      const tied = it.ties[at];
      const gap = make("button", { type: "button", className: "fb-gap", textContent: tied ? "=" : "›" });
      const [one, other] = [it.order[at], it.order[at + 1]].map((side) => LETTERS[side]);
      gap.setAttribute("aria-pressed", String(tied));
      gap.setAttribute("aria-label", t("Tie between {one} and {other}", { one, other }));
      gap.title = tied
        ? t("{one} and {other} are tied", { one, other })
        : t("{one} is better than {other}; press for a tie", { one, other });
      gap.addEventListener("click", () => tie(at));
      return make("li", {}, gap);
    };
    const draw = () => {
      const ranks = ranksOf(it, count);
      list.replaceChildren(
        ...it.order.flatMap((side, i) => (i ? [gapOf(i - 1), chipOf(side, ranks[side])] : [chipOf(side, ranks[side])])),
      );
      rest.replaceChildren(...unranked().map((side) => chipOf(side, null)));
      root.classList.toggle("empty", it.order.length === 0);
      again.hidden = it.order.length === 0;
      best.textContent = it.order.length ? t("Best") : t("Pick the best first:");
      for (let side = 0; side < count; side++) {
        const element = feedback.sideElement(side);
        const badge = element?.querySelector(".fb-rank");
        if (badge) badge.textContent = ranks[side] === null ? "" : t("{rank} of {count}", { rank: ranks[side], count });
        element?.classList.toggle("chosen", ranks[side] === 1);
      }
    };
    draw();
    return {
      /** The number key of a side: the next place for it, or the focus where it has one. */
      press: (side) => {
        if (side >= count) return;
        if (it.order.includes(side)) root.querySelector(`[data-side="${side}"]`)?.focus();
        else append(side);
      },
      keyed,
    };
  };
})();
