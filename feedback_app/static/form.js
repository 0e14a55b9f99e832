// The form of an item: ratings, critiques with tags, fixes and marked passages, rewrites, and the verdict. One component
// holds it all; its parts stand in the columns' slots. Everything from the server is set as text, never as HTML.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const { t } = feedback;
  const LETTERS = "ABCDEFGH";
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const grouped = (node, label, role = "group") => {
    node.setAttribute("role", role);
    node.setAttribute("aria-label", label);
    return node;
  };
  const EMPTY = { kind: "pair", order: "free", criteria: [], tags: [], outcome: null, strength: null, ranks: [], sides: [] };
  let it = EMPTY; // the item's form as it stands
  const opened = new Set(); // rewrites that the annotator keeps open from item to item
  const touched = () => feedback.touched?.();

  feedback.sideElement = (number) => document.getElementById(`fb-side-${LETTERS[number].toLowerCase()}`);
  feedback.sideNumber = (element) => LETTERS.indexOf(element.id.slice(-1).toUpperCase());
  feedback.sourceText = (number) => it.sides[number]?.text ?? "";
  feedback.kind = () => (it.sides.length ? it.kind : null);

  /** What has been said, as the server takes it. */
  feedback.said = () => ({
    outcome: it.outcome,
    strength: it.strength,
    ranks: it.ranks,
    sides: it.sides.map(({ text, ratings, critiques, refinement }) => ({
      ratings,
      critiques: critiques.filter((one) => one.text || one.fix || one.tags.length || one.start !== null),
      refinement: refinement === text ? "" : refinement,
    })),
  });

  // --- ratings ---
  const scale = (criterion, letter, chosen, choose) => {
    const group = grouped(make("div", { className: "fb-scale" }), t("{criterion} of {letter}", { criterion: criterion.name, letter }), "radiogroup");
    for (let value = criterion.low; value <= criterion.high; value++) {
      const input = make("input", { type: "radio", name: `${letter}-${criterion.id}`, value: String(value) });
      input.checked = chosen() === value;
      input.addEventListener("change", () => choose(value));
      const label = make("label", {}, input, make("span", { textContent: String(value) }));
      // A second click takes the rating back.
      label.addEventListener("pointerdown", () => {
        if (input.checked) input.dataset.armed = "1";
        else delete input.dataset.armed;
      });
      input.addEventListener("click", () => {
        if (chosen() !== value || !input.dataset.armed) return;
        input.checked = false;
        choose(null);
      });
      group.append(label);
    }
    // With keys, Delete does.
    group.addEventListener("keydown", (event) => {
      const picked = group.querySelector("input:checked");
      if (!picked || !["Delete", "Backspace"].includes(event.key)) return;
      event.preventDefault();
      picked.checked = false;
      choose(null);
    });
    return group;
  };
  const number = (criterion, letter, chosen, choose) => {
    const input = make("input", { type: "number", className: "fb-number", step: 1 });
    input.min = criterion.low;
    input.max = criterion.high;
    input.value = chosen() ?? "";
    input.placeholder = `${criterion.low}–${criterion.high}`;
    input.setAttribute("aria-label", t("{criterion} of {letter}", { criterion: criterion.name, letter }));
    input.addEventListener("change", () => choose(input.value === "" ? null : Math.round(input.value)));
    return input;
  };
  const ratingsOf = (side, letter) => {
    const box = make("div", { className: "fb-ratings" });
    for (const criterion of it.criteria) {
      const name = make("span", { className: "fb-criterion", textContent: criterion.name });
      if (criterion.description) name.title = criterion.description;
      const chosen = () => side.ratings[criterion.id];
      const choose = (value) => {
        if (value === null) delete side.ratings[criterion.id];
        else side.ratings[criterion.id] = value;
        gate();
        touched();
      };
      const control = criterion.high - criterion.low > 9 ? number : scale;
      box.append(make("div", { className: "fb-rating" }, name, control(criterion, letter, chosen, choose)));
    }
    return box;
  };

  // --- critiques ---
  const field = (className, label, text, rows, changed, placeholder = "") => {
    const area = make("textarea", { rows, value: text, placeholder });
    area.addEventListener("input", () => changed(area.value));
    return make("label", { className }, make("span", { className: "fb-label", textContent: label }), area);
  };
  const quoteOf = (side, critique) => Array.from(side.text).slice(critique.start, critique.end).join("");
  const critiqueOf = (side, letter, critique, redraw) => {
    const marked = critique.start !== null;
    const block = make("div", { className: marked ? "fb-passage" : "fb-whole" });
    const fix = field(
      "fb-fix",
      t("What should it say instead?"),
      critique.fix,
      1,
      (text) => {
        critique.fix = text;
        fresh();
      },
    );
    const fresh = () => {
      // The question comes once there is something to mend.
      fix.hidden = !(critique.text.trim() || critique.tags.length || critique.fix || marked);
    };
    if (marked) {
      const quote = quoteOf(side, critique);
      const off = make("button", { type: "button", className: "fb-off-mark", textContent: "✕" });
      off.setAttribute("aria-label", t("Take the mark off “{quote}”", { quote: quote.slice(0, 60) }));
      off.addEventListener("click", () => {
        const kept = critique.text || critique.fix || critique.tags.length;
        if (kept) critique.start = critique.end = null;
        else side.critiques.splice(side.critiques.indexOf(critique), 1);
        redraw();
        touched();
      });
      block.append(make("p", { className: "fb-quote" }, make("q", { textContent: quote }), off));
    }
    const placeholder = marked
      ? t("What is wrong, or good, here?")
      : t("What should be different, and what is good? Be specific.");
    const whole = it.kind === "single" ? t("Critique") : t("Critique of {letter}", { letter });
    const label = marked ? t("Critique of a passage of {letter}", { letter }) : whole;
    const about = marked ? t("Tags of the passage") : t("Tags of {letter}", { letter });
    const say = (text) => {
      critique.text = text;
      fresh();
    };
    block.append(field(marked ? "fb-passage-text" : "fb-critique", label, critique.text, 2, say, placeholder));
    if (it.tags.length) block.append(tagsOf(critique, about, fresh));
    block.append(fix);
    fresh();
    return block;
  };
  const tagsOf = (critique, label, fresh) => {
    const chips = grouped(make("div", { className: "fb-tags" }), label);
    // A tag that the project has dropped since still shows where it was given.
    for (const tag of [...it.tags, ...critique.tags.filter((one) => !it.tags.includes(one))]) {
      const chip = make("button", { type: "button", className: "fb-tag", textContent: tag });
      chip.setAttribute("aria-pressed", String(critique.tags.includes(tag)));
      chip.addEventListener("click", () => {
        const on = !critique.tags.includes(tag);
        critique.tags = on ? [...critique.tags, tag] : critique.tags.filter((one) => one !== tag);
        chip.setAttribute("aria-pressed", String(on));
        fresh();
        touched();
      });
      chips.append(chip);
    }
    return chips;
  };
  const critiquesOf = (side, letter) => {
    const box = make("div", { className: "fb-say" });
    const draw = () => {
      // One critique of the whole is always open; those of passages stand above it in the text's order.
      if (!side.critiques.some((one) => one.start === null)) side.critiques.push(empty());
      const rank = (one) => one.start ?? Infinity;
      side.critiques.sort((one, other) => rank(one) - rank(other) || 0);
      box.replaceChildren(...side.critiques.map((one) => critiqueOf(side, letter, one, draw)));
      marks();
    };
    side.redraw = draw;
    draw();
    return box;
  };
  const empty = (start = null, end = null) => ({ text: "", tags: [], fix: "", start, end });

  let soon = 0;
  const marks = () => {
    clearTimeout(soon);
    soon = setTimeout(() => feedback.drawMarks(it.sides), 60);
  };
  feedback.marks = marks;
  feedback.mayCriticise = () => it.sides.length > 0 && !document.querySelector("#fb-sides.fb-closed");
  /** Open a critique on the characters [start, end) of a completion and go there. */
  feedback.criticise = (number, start, end) => {
    const side = it.sides[number];
    let critique = side.critiques.find((one) => one.start === start && one.end === end);
    if (!critique) side.critiques.push((critique = empty(start, end)));
    side.redraw();
    const place = side.critiques.indexOf(critique);
    feedback.sideElement(number).querySelectorAll(".fb-say > div")[place].querySelector("textarea").focus();
    touched();
  };
  /** Press tag number n of the critique that is being written, or of the one of the side looked at last. */
  feedback.pressTag = (n, number) => {
    const here = document.activeElement?.closest(".fb-say > div");
    const block = here || feedback.sideElement(number)?.querySelector(".fb-whole");
    block?.querySelectorAll(".fb-tag")[n]?.click();
  };

  // --- rewrites ---
  const rewriteOf = (side, letter) => {
    const box = make("details", { className: "fb-rewrite" });
    const shown = make("div", { className: "fb-diff" });
    const draw = () => {
      const parts = side.refinement === side.text ? [] : feedback.difference(side.text, side.refinement);
      shown.hidden = parts.length === 0;
      const tag = { same: "span", gone: "del", new: "ins" };
      shown.replaceChildren(...parts.map(({ kind, text }) => make(tag[kind], { textContent: text })));
    };
    grouped(shown, t("What changes in {letter}", { letter }));
    const change = (text) => {
      side.refinement = text;
      draw();
    };
    const area = field("fb-rewritten", t("{letter} as it should be", { letter }), side.refinement, 5, change);
    const note = t("Change as little or as much as you like; left as it is, it does not count.");
    const head = it.kind === "single" ? t("Rewrite") : t("Rewrite {letter}", { letter });
    box.append(make("summary", { textContent: head }), area, shown, make("p", { className: "fb-note", textContent: note }));
    box.open = opened.has(letter) || side.refinement !== side.text;
    box.addEventListener("toggle", () => (box.open ? opened.add(letter) : opened.delete(letter)));
    draw();
    return box;
  };

  // --- the plain text of a completion: exact to the character, and selectable with keys ---
  feedback.showPlain = (number, on) => {
    const element = feedback.sideElement(number);
    const slot = element.querySelector(".fb-plain-text");
    element.classList.toggle("fb-as-plain", on);
    element.querySelector("[data-plain]")?.setAttribute("aria-pressed", String(on));
    if (!on) return slot.replaceChildren();
    const source = it.sides[number].text;
    const area = make("textarea", { value: source, spellcheck: false });
    // Not `readOnly`: that hides the caret, and with it the way to select by keys.
    area.setAttribute("aria-readonly", "true");
    area.addEventListener("beforeinput", (event) => event.preventDefault());
    area.addEventListener("input", (event) => {
      event.stopPropagation(); // a composition cannot be prevented, and is no change of the form
      area.value = source;
    });
    for (const kind of ["keyup", "select", "pointerup"]) area.addEventListener(kind, feedback.followSelection);
    area.setAttribute("aria-label", t("Plain text of {letter}: select a passage, then press C", { letter: LETTERS[number] }));
    area.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "c" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (feedback.criticiseSelection()) event.preventDefault();
    });
    slot.replaceChildren(area);
    area.style.height = `${area.scrollHeight + 4}px`;
    area.focus();
  };

  // --- judge first ---
  const judged = () => {
    if (it.kind === "pair") return it.outcome !== null;
    if (it.kind === "ranking") return it.ranks.length > 0 && it.ranks.every((rank) => rank !== null);
    return it.criteria.length === 0 || it.sides.some((side) => Object.keys(side.ratings).length > 0);
  };
  const gate = () => {
    const closed = it.order === "judge_first" && !judged();
    document.getElementById("fb-sides")?.classList.toggle("fb-closed", closed);
  };

  // --- verdict ---
  const OUTCOMES = [
    ["first", "A", t(" is better"), "1"],
    ["second", "B", t(" is better"), "2"],
    ["tie", t("Tie"), "", "3"],
    ["both_bad", t("Both bad"), "", "4"],
  ];
  const STRENGTHS = [
    [1, t("slightly")],
    [2, t("clearly")],
    [3, t("much")],
  ];
  const decided = () => ["first", "second"].includes(it.outcome);
  const verdict = (root) => {
    const outcomes = grouped(make("div", { className: "fb-outcomes" }), t("Which is better?"));
    for (const [outcome, label, rest, key] of OUTCOMES) {
      const button = make("button", { type: "button", id: `fb-pick-${outcome}` });
      button.dataset.outcome = outcome;
      button.append(make("kbd", { textContent: key }), make("b", { textContent: label }));
      if (rest) button.append(make("span", { className: "fb-wide", textContent: rest }));
      button.addEventListener("click", () => pick(outcome));
      outcomes.append(button);
    }
    const strengths = grouped(make("div", { className: "fb-strengths" }), t("How much better?"));
    for (const [strength, label] of STRENGTHS) {
      const button = make("button", { type: "button", textContent: label });
      button.dataset.strength = strength;
      button.addEventListener("click", () => set({ strength: it.strength === strength ? null : strength }));
      strengths.append(button);
    }
    root.replaceChildren(outcomes, strengths);
    const set = (change) => {
      Object.assign(it, change);
      draw();
      touched();
    };
    const pick = (outcome) => {
      if (it.outcome !== outcome) set({ outcome, strength: null });
    };
    const draw = () => {
      for (const button of outcomes.children) {
        button.setAttribute("aria-pressed", String(button.dataset.outcome === it.outcome));
      }
      for (const button of strengths.children) {
        button.disabled = !decided();
        button.setAttribute("aria-pressed", String(Number(button.dataset.strength) === it.strength));
      }
      document.querySelectorAll("[data-pick]").forEach((button) => {
        const mine = button.dataset.pick === "a" ? "first" : "second";
        button.setAttribute("aria-pressed", String(mine === it.outcome));
        button.closest(".fb-side").classList.toggle("chosen", mine === it.outcome);
      });
      gate();
    };
    draw();
    return {
      // The key pressed again says how much better.
      press: (key) => {
        const outcome = OUTCOMES.find(([, , , own]) => own === key)?.[0];
        if (!outcome) return false;
        if (it.outcome !== outcome) pick(outcome);
        else if (decided()) set({ strength: ((it.strength || 0) % 3) + 1 });
        return true;
      },
    };
  };
  document.addEventListener("click", (event) => {
    const pick = event.target instanceof Element && event.target.closest("[data-pick]");
    if (pick) document.getElementById(pick.dataset.pick === "a" ? "fb-pick-first" : "fb-pick-second")?.click();
    const plain = event.target instanceof Element && event.target.closest("[data-plain]");
    if (plain) {
      const side = plain.closest(".fb-side");
      feedback.showPlain(feedback.sideNumber(side), !side.classList.contains("fb-as-plain"));
    }
  });

  const order = (root) => {
    const strip = feedback.ranking(root, it.sides.length, it.ranks, (ranks) => {
      it.ranks = ranks;
      gate();
      touched();
    });
    gate();
    feedback.moveCard = (event, number) => strip.keyed(event, number);
    return {
      press: (key) => {
        if (key < "1" || key > String(it.sides.length)) return false;
        strip.press(Number(key) - 1);
        return true;
      },
    };
  };

  /** Started by the component: draws what it holds, now and whenever the server sends another item. */
  feedback.form = (element, props, watch) => {
    const root = element.querySelector(".fb-verdict");
    const draw = () => {
      const slots = document.querySelectorAll("#fb-sides .fb-slot");
      if (slots.length < LETTERS.length) return void requestAnimationFrame(draw); // not all columns are there yet
      it = structuredClone({ ...EMPTY, ...(props.value || {}) });
      for (const side of it.sides) side.refinement ??= side.text;
      slots.forEach((slot, number) => {
        const element = feedback.sideElement(number);
        const side = it.sides[number];
        element.classList.toggle("fb-off", !side);
        element.classList.remove("chosen");
        if (element.classList.contains("fb-as-plain")) feedback.showPlain(number, false);
        grouped(element, t("Completion {letter}", { letter: LETTERS[number] }));
        if (it.kind === "ranking" && side) element.tabIndex = 0;
        else element.removeAttribute("tabindex");
        const letter = LETTERS[number];
        const parts = side ? [ratingsOf(side, letter), critiquesOf(side, letter), rewriteOf(side, letter)] : [];
        slot.replaceChildren(...parts);
      });
      const ranks = it.sides.map((_, number) => it.ranks[number] ?? null);
      it.ranks = it.kind === "ranking" ? ranks : [];
      root.dataset.kind = document.getElementById("fb-sides").dataset.kind = it.kind;
      if (it.kind === "ranking") feedback.press = order(root).press;
      else if (it.kind === "pair") feedback.press = verdict(root).press;
      else {
        root.replaceChildren();
        feedback.press = () => false;
        gate();
      }
      marks();
    };
    watch("value", draw);
    draw();
  };
})();
