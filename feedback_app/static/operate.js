// The operate page: rows that can be chosen, actions on users, copying a link.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const { t } = feedback;
  feedback.chosen = { run: null, version: null, user: null, action: null };

  const press = (id) => document.getElementById(id)?.click();
  const choose = (row) => {
    if (row.dataset.run) {
      feedback.chosen.run = row.dataset.run;
      feedback.keep("run", row.dataset.run);
      press("op-select-run");
    } else {
      feedback.chosen.version = row.dataset.version;
      press("op-select-version");
    }
  };
  const QUESTIONS = {
    disable: (name) => t("Disable {name}? They are signed out everywhere at once. Their annotations stay.", { name }),
    erase: (name) =>
      t(
        "Erase {name} for good? Everything they wrote and chose, their name and their ways in are deleted. There is no way back.",
        { name },
      ),
    reset: (name) => t("Make a reset link for {name}? Using it replaces their password.", { name }),
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const row = target.closest("tr[data-run], tr[data-version]");
    if (row) choose(row);
    const action = target.closest("button[data-user]");
    if (action) {
      const { user, action: what } = action.dataset;
      if (QUESTIONS[what] && !window.confirm(QUESTIONS[what](user))) return;
      Object.assign(feedback.chosen, { user, action: what });
      press("op-act-user");
    }
    const copy = target.closest("[data-copy]");
    if (copy) {
      const field = copy.parentElement.querySelector("input");
      field.select();
      navigator.clipboard?.writeText(field.value).then(
        () => (copy.textContent = t("Copied")),
        () => {},
      );
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    const row = event.target instanceof Element && event.target.matches("tr[data-run], tr[data-version]") && event.target;
    if (!row) return;
    event.preventDefault();
    choose(row);
  });

  // People annotated while the operator was elsewhere.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && document.getElementById("op-preview")?.offsetParent) {
      press("op-count-again");
    }
  });

  // What is larger than its place scrolls with the arrow keys too.
  const wide = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const more = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
      if (more) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  // The lists are drawn anew while a run goes on: the row or button in focus keeps it.
  const NAMES = ["run", "version", "user", "action"];
  let focused = null;
  document.addEventListener("focusin", ({ target }) => {
    const own = NAMES.filter((name) => target.dataset[name]);
    const selector = own.map((name) => `[data-${name}="${CSS.escape(target.dataset[name])}"]`).join("");
    focused = own.length ? { node: target, selector } : null;
  });
  const seen = new WeakSet();
  new MutationObserver(() => {
    if (focused && !focused.node.isConnected && document.activeElement === document.body) {
      document.querySelector(focused.selector)?.focus({ preventScroll: true });
    }
    for (const box of document.querySelectorAll(".op-scroll, .op-log")) {
      if (seen.has(box)) continue;
      seen.add(box);
      wide.observe(box);
    }
  }).observe(document.documentElement, { subtree: true, childList: true });
})();
