// The annotate page: rating grids, the verdict, keys, autosave. Everything from the server is set as text, never as HTML.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };

  // --- autosave: a moment after the last change, and when the page is left ---
  const QUIET = 700;
  let pending = null;
  const save = () => {
    if (pending === null) return;
    clearTimeout(pending);
    pending = null;
    document.getElementById("fb-save")?.click();
  };
  const touched = () => {
    clearTimeout(pending);
    pending = setTimeout(save, QUIET);
  };
  document.addEventListener("input", (event) => {
    if (event.target instanceof Element && event.target.closest("#fb-sides")) touched();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") save();
  });

  // --- ratings ---
  feedback.ratings = (element, props, trigger, watch, letter) => {
    const root = element.querySelector(".fb-ratings");
    const choose = (id, value) => {
      const values = { ...props.value.values };
      if (value === null) delete values[id];
      else values[id] = value;
      props.value = { ...props.value, values };
      touched();
    };
    const scale = (criterion, chosen) => {
      const group = make("div", { className: "fb-scale" });
      group.setAttribute("role", "radiogroup");
      group.setAttribute("aria-label", `${criterion.name} of ${letter}`);
      for (let value = criterion.low; value <= criterion.high; value++) {
        const input = make("input", {
          type: "radio",
          name: `${letter}-${criterion.id}`,
          value: String(value),
          checked: chosen === value,
        });
        input.addEventListener("change", () => choose(criterion.id, value));
        // A second click takes the rating back.
        input.addEventListener("click", () => {
          if (props.value.values[criterion.id] !== value || !input.dataset.armed) return;
          input.checked = false;
          choose(criterion.id, null);
        });
        const label = make("label", {}, input, make("span", { textContent: String(value) }));
        label.addEventListener("pointerdown", () => {
          if (input.checked) input.dataset.armed = "1";
          else delete input.dataset.armed;
        });
        group.append(label);
      }
      return group;
    };
    const number = (criterion, chosen) => {
      const input = make("input", { type: "number", min: criterion.low, max: criterion.high, step: 1 });
      input.className = "fb-number";
      input.value = chosen ?? "";
      input.placeholder = `${criterion.low}–${criterion.high}`;
      input.setAttribute("aria-label", `${criterion.name} of ${letter}`);
      input.addEventListener("change", () => choose(criterion.id, input.value === "" ? null : Math.round(input.value)));
      return input;
    };
    const draw = () => {
      const { criteria = [], values = {} } = props.value || {};
      root.replaceChildren(
        ...criteria.map((criterion) => {
          const name = make("span", { className: "fb-criterion", textContent: criterion.name });
          if (criterion.description) name.title = criterion.description;
          const wide = criterion.high - criterion.low > 9;
          const chosen = values[criterion.id];
          return make("div", { className: "fb-rating" }, name, wide ? number(criterion, chosen) : scale(criterion, chosen));
        }),
      );
    };
    watch("value", draw);
    draw();
  };

  // --- verdict ---
  const OUTCOMES = [
    ["first", "A", " is better", "1"],
    ["second", "B", " is better", "2"],
    ["tie", "Tie", "", "3"],
    ["both_bad", "Both bad", "", "4"],
  ];
  const STRENGTHS = [
    [1, "slightly"],
    [2, "clearly"],
    [3, "much"],
  ];
  feedback.verdict = (element, props, trigger, watch) => {
    const root = element.querySelector(".fb-verdict");
    const decided = () => ["first", "second"].includes(props.value?.outcome);
    const set = (change) => {
      props.value = { ...props.value, ...change };
      draw();
      touched();
    };
    const pick = (outcome) => {
      if (props.value?.outcome !== outcome) set({ outcome, strength: null });
    };
    // The key pressed again says how much better.
    feedback.press = (outcome) => {
      if (props.value?.outcome !== outcome) return pick(outcome);
      if (decided()) set({ strength: ((props.value.strength || 0) % 3) + 1 });
    };
    const outcomes = make("div", { className: "fb-outcomes" });
    outcomes.setAttribute("role", "group");
    outcomes.setAttribute("aria-label", "Which is better?");
    for (const [outcome, label, rest, key] of OUTCOMES) {
      const button = make("button", { type: "button", id: `fb-pick-${outcome}` });
      button.dataset.outcome = outcome;
      button.append(make("kbd", { textContent: key }), make("b", { textContent: label }));
      if (rest) button.append(make("span", { className: "fb-wide", textContent: rest }));
      button.addEventListener("click", () => pick(outcome));
      outcomes.append(button);
    }
    const strengths = make("div", { className: "fb-strengths" });
    strengths.setAttribute("role", "group");
    strengths.setAttribute("aria-label", "How much better?");
    for (const [strength, label] of STRENGTHS) {
      const button = make("button", { type: "button", textContent: label });
      button.dataset.strength = strength;
      button.addEventListener("click", () => set({ strength: props.value.strength === strength ? null : strength }));
      strengths.append(button);
    }
    root.append(outcomes, strengths);
    const draw = () => {
      const { outcome = null, strength = null } = props.value || {};
      for (const button of outcomes.children) button.setAttribute("aria-pressed", button.dataset.outcome === outcome);
      for (const button of strengths.children) {
        button.disabled = !decided();
        button.setAttribute("aria-pressed", Number(button.dataset.strength) === strength);
      }
      document.querySelectorAll("[data-pick]").forEach((button) => {
        const mine = button.dataset.pick === "a" ? "first" : "second";
        button.setAttribute("aria-pressed", mine === outcome);
        button.closest(".fb-side")?.classList.toggle("chosen", mine === outcome);
      });
    };
    watch("value", draw);
    draw();
  };
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("[data-pick]");
    if (button) document.getElementById(button.dataset.pick === "a" ? "fb-pick-first" : "fb-pick-second")?.click();
  });

  // --- the item changed ---
  let shownAt = performance.now();
  let shown = null;
  feedback.seconds = () => Math.round((performance.now() - shownAt) / 100) / 10;
  const arrived = () => {
    const assignment = document.getElementById("fb-stage")?.dataset.assignment ?? null;
    if (assignment === shown) return;
    shown = assignment;
    shownAt = performance.now();
    clearTimeout(pending);
    pending = null;
    feedback.closePanels();
    window.scrollTo(0, 0);
    performance.mark("fb-item");
  };
  new MutationObserver(arrived).observe(document.documentElement, {
    subtree: true,
    attributes: true,
    attributeFilter: ["data-assignment"],
  });

  // --- keys ---
  const writes = (node) => node instanceof Element && node.matches("textarea, input:not([type=radio]), [contenteditable=true]");
  const submit = () => {
    clearTimeout(pending);
    pending = null;
    // Leaving the field commits what was typed last.
    if (writes(document.activeElement)) document.activeElement.blur();
    setTimeout(() => document.getElementById("fb-submit")?.click(), 0);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (document.querySelector(".fb-panel.open") || event.repeat) return;
      event.preventDefault();
      submit();
      return;
    }
    if (event.key === "Escape" && writes(document.activeElement)) document.activeElement.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || writes(event.target)) return;
    if (event.key === "?") return feedback.openPanel("fb-keys");
    if (document.querySelector(".fb-panel.open")) return;
    const outcome = OUTCOMES.find(([, , , key]) => key === event.key);
    if (outcome && feedback.press && document.querySelector('#fb-stage[data-kind="pair"]')) {
      event.preventDefault();
      feedback.press(outcome[0]);
    }
  });
})();
