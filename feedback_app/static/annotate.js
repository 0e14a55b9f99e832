// The annotate page: autosave, keys, guidelines beside the work, and what happens when an item arrives.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});

  // --- autosave: a moment after the last change, and when the page is left ---
  const QUIET = 700;
  let pending = null;
  const forget = () => {
    clearTimeout(pending);
    pending = null;
  };
  const save = () => {
    if (pending === null) return;
    forget();
    document.getElementById("fb-save")?.click();
  };
  feedback.touched = () => {
    clearTimeout(pending);
    pending = setTimeout(save, QUIET);
  };
  document.addEventListener("input", (event) => {
    if (event.target instanceof Element && event.target.closest("#fb-sides")) feedback.touched();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") save();
  });

  // --- the item changed ---
  let shownAt = performance.now();
  let shown = null;
  let looked = 0; // the completion that was looked at last: tags without a field go there
  feedback.seconds = () => Math.round((performance.now() - shownAt) / 100) / 10;
  const arrived = () => {
    lay();
    const assignment = document.getElementById("fb-stage")?.dataset.assignment ?? null;
    if (assignment === shown) return;
    const was = shown;
    shown = assignment;
    shownAt = performance.now();
    looked = 0;
    told = false;
    forget();
    feedback.closePanels?.();
    window.scrollTo(0, 0);
    if (was) land(assignment !== "");
    performance.mark("fb-item");
  };
  // After a submit the new item has the focus, and is announced.
  const land = (item) => {
    // static/lesson.js and static/play.js have it.
    if (document.querySelector('#fb-stage[data-lesson="shown"], #fb-stage[data-play]')) return;
    const here = document.activeElement;
    if (here !== document.body && !here?.closest("#fb-work, #fb-actions, .fb-panel")) return;
    if (!item) return feedback.say?.(feedback.t("Done. Nothing is left for you right now."));
    const prompt = document.getElementById("fb-prompt");
    prompt.tabIndex = 0; // it scrolls with the arrow keys
    prompt.focus({ preventScroll: true });
    feedback.say?.(feedback.t("Done. Here is the next item."));
  };
  /** The draft is stored: said once an item, so as not to talk into the typing. */
  let told = false;
  feedback.saved = () => {
    if (!told) feedback.say?.(feedback.t("Your draft is saved."));
    told = true;
  };
  new MutationObserver(arrived).observe(document.documentElement, {
    subtree: true,
    attributes: true,
    attributeFilter: ["data-assignment", "data-guidelines"],
  });
  queueMicrotask(arrived); // this script may come after the first item
  // Of a long conversation the last turn is what was answered: show it, until somebody scrolls.
  const lastTurn = () => {
    const box = document.getElementById("fb-prompt");
    const rows = box?.querySelectorAll(".message-row") ?? [];
    if (rows.length < 3 || performance.now() - shownAt > 2000) return;
    const last = rows[rows.length - 1];
    box.scrollTop += last.getBoundingClientRect().top - box.getBoundingClientRect().top;
  };
  // When texts have been rendered: marks are drawn anew, the conversation is scrolled.
  new MutationObserver((changes) => {
    const within = (where) => changes.some(({ target }) => target instanceof Element && target.closest(where));
    if (within(".fb-text")) feedback.marks();
    if (within("#fb-prompt")) requestAnimationFrame(lastTurn);
  }).observe(document.documentElement, { subtree: true, childList: true });
  for (const kind of ["focusin", "pointerdown"]) {
    document.addEventListener(kind, (event) => {
      const side = event.target instanceof Element && event.target.closest(".fb-side");
      if (side) looked = feedback.sideNumber(side);
    });
  }

  // --- guidelines beside the work, where there is room and there are some ---
  const ROOM = window.matchMedia("(min-width: 1400px)");
  const KEPT = "feedback-guidelines";
  const roomy = () => ROOM.matches && document.getElementById("fb-stage")?.dataset.guidelines === "yes";
  const lay = () => {
    const on = roomy() && localStorage.getItem(KEPT) !== "closed";
    document.documentElement.classList.toggle("fb-beside", on);
    return on;
  };
  ROOM.addEventListener("change", lay);
  document.addEventListener(
    "click",
    (event) => {
      if (!roomy() || !(event.target instanceof Element)) return;
      const opens = event.target.closest('[data-panel="fb-guidelines"]');
      if (!opens && !event.target.closest("#fb-guidelines [data-close]")) return;
      event.stopPropagation(); // it is no overlay here
      const beside = document.documentElement.classList.contains("fb-beside");
      localStorage.setItem(KEPT, opens && !beside ? "open" : "closed");
      lay();
    },
    true,
  );

  // --- keys ---
  const writes = (node) => node instanceof Element && node.matches("textarea, input:not([type=radio]), [contenteditable=true]");
  const submit = () => {
    forget();
    document.getElementById("fb-submit")?.click();
  };
  document.addEventListener("keydown", (event) => {
    const open = document.querySelector(".fb-panel.open");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (open || event.repeat) return;
      event.preventDefault();
      submit();
      return;
    }
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
    if (event.altKey && !event.ctrlKey && !event.metaKey && digit && !open && feedback.kind?.()) {
      event.preventDefault();
      feedback.pressTag(Number(digit) - 1, looked);
      return;
    }
    if (event.key === "Escape" && writes(document.activeElement)) document.activeElement.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || writes(event.target)) return;
    if (event.target instanceof Element && event.target.matches('.fb-side[tabindex="0"]')) {
      feedback.moveCard?.(event, feedback.sideNumber(event.target));
      if (event.defaultPrevented) return void event.target.focus();
    }
    if (event.repeat) return;
    if (event.key === "?") return feedback.openPanel("fb-keys");
    if (open || !feedback.kind?.()) return;
    if (event.key.toLowerCase() === "c" && feedback.criticiseSelection()) return event.preventDefault();
    if (feedback.press(event.key)) event.preventDefault();
  });
})();
