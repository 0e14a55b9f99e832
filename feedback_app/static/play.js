// The playground: what is being typed is kept, keys send and choose, and the page goes where the conversation is.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const stage = () => document.getElementById("fb-stage");
  const box = () => document.querySelector("#pl-box textarea");
  const state = () => stage()?.dataset.state ?? "loading";
  const press = (id) => {
    const button = document.getElementById(id);
    if (button?.checkVisibility() && !button.disabled) button.click();
  };

  // --- what is being typed: in this tab at once, in the store a moment later ---
  const QUIET = 400;
  const KEY = "feedback-play";
  const here = () => ({ who: stage()?.dataset.who, turn: stage()?.dataset.turn, at: location.search });
  let pending = null;
  const keep = () => {
    if (pending === null) return;
    clearTimeout(pending);
    pending = null;
    document.getElementById("pl-keep")?.click();
  };
  document.addEventListener("input", (event) => {
    if (event.target !== box() || state() !== "typing") return;
    sessionStorage.setItem(KEY, JSON.stringify({ ...here(), text: box().value }));
    clearTimeout(pending);
    pending = setTimeout(keep, QUIET);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") keep();
  });
  const type = (text) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box(), text);
    box().dispatchEvent(new Event("input", { bubbles: true }));
  };
  let restored = false;
  const restore = () => {
    if (restored || state() === "loading" || !box()) return;
    restored = true;
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    const now = here();
    const same = kept && kept.who === now.who && kept.turn === now.turn && kept.at === now.at;
    if (same && state() === "typing" && kept.text !== box().value) type(kept.text);
  };
  feedback.play = {
    /** What is in the box this moment: Gradio hears of a keystroke a little later. */
    typed: () => {
      clearTimeout(pending);
      pending = null;
      return box()?.value ?? "";
    },
  };

  // --- the conversation went on ---
  let shown = null;
  const arrived = () => {
    const now = `${state()} ${stage()?.dataset.turn}`;
    if (now === shown || state() === "loading") return;
    const first = shown === null;
    shown = now;
    document.documentElement.dataset.play = state();
    setTimeout(restore, 50); // once the box holds what the server knows
    if (state() === "typing" && (!first || window.matchMedia("(pointer: fine)").matches)) {
      setTimeout(() => box()?.focus({ preventScroll: first }), 60);
    }
    if (state() === "item" && !first) {
      if (document.activeElement === box()) box().blur(); // the keys judge now
      feedback.say?.(feedback.t("Both completions are written."));
    }
  };
  new MutationObserver(arrived).observe(document.documentElement, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["data-state", "data-turn"],
  });
  queueMicrotask(arrived);

  // --- keys, before those of the form ---
  // Gradio's box would send at Shift and Enter, too; here they begin a new line.
  document.addEventListener("keypress", (event) => event.target === box() && event.stopImmediatePropagation(), true);
  const writes = (node) => node instanceof Element && node.matches("textarea, input:not([type=radio])");
  document.addEventListener(
    "keydown",
    (event) => {
      if (document.querySelector(".fb-panel.open") || state() === "item" || state() === "loading") return;
      // Not while a word is put together from keystrokes, as in Chinese: that Enter is the input method's.
      const sends = event.ctrlKey || event.metaKey || (event.target === box() && !event.shiftKey);
      if (event.key === "Enter" && sends && !event.isComposing) {
        event.stopImmediatePropagation();
        event.preventDefault();
        if (state() === "typing" && !event.repeat) press("pl-send");
        return;
      }
      if (event.key === "Escape" && state() === "writing") return press("pl-stop");
      if (state() !== "judged" || event.repeat || event.ctrlKey || event.metaKey || event.altKey || writes(event.target)) {
        return;
      }
      const way = { 1: "pl-go-a", 2: "pl-go-b", 3: "pl-go-a-rewrite", 4: "pl-go-b-rewrite" }[event.key];
      if (!way) return;
      event.preventDefault();
      press(way);
    },
    true,
  );
})();
