// Shared by both pages: a lost session leads to the login page, panels, remembering choices in the address.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});

  let leaving = false;
  const toLogin = () => {
    if (leaving) return;
    leaving = true;
    // What was typed last is kept in this browser first: a submit that was refused has stored nothing.
    document.getElementById("fb-save")?.click();
    const here = location.pathname + location.search;
    setTimeout(() => location.assign("/login?next=" + encodeURIComponent(here)), 200);
  };
  const plainFetch = window.fetch.bind(window);
  window.fetch = async (...args) => {
    const response = await plainFetch(...args);
    const own = new URL(response.url).origin === location.origin;
    if (response.status === 401 && own) toLogin();
    if (response.ok && own && response.url.endsWith("/run/saved")) feedback.saved?.();
    // An event outside the queue fails without a word of Gradio's.
    if (response.status === 500 && own && response.url.includes("/run/")) {
      feedback.notice(feedback.t("Something went wrong; what you typed is kept. Try again, or tell an operator."));
    }
    return response;
  };

  feedback.notice = (line) => {
    const box = document.getElementById("fb-notice-box");
    if (!box) return;
    const said = document.createElement("div");
    said.className = "fb-notice";
    said.setAttribute("role", "alert");
    said.textContent = line;
    box.append(said);
    setTimeout(() => said.remove(), 10000);
  };

  // Keep a choice in the address, so that a reload shows the same.
  feedback.keep = (name, value) => {
    const url = new URL(location.href);
    if (value === null || value === undefined || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
    history.replaceState(history.state, "", url);
  };

  let wasProject = null;
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches?.("#fb-project input")) wasProject = target.value;
  });
  /** The project that was chosen, kept in the address; null when it is the one that was there. */
  feedback.otherProject = (project) => {
    if (project === wasProject) return null;
    feedback.keep("project", (wasProject = project));
    return project;
  };

  // Panels: any [data-panel] button opens the element of that id; Escape, the close button or the veil closes it.
  let opener = null;
  const reachable = (panel) =>
    Array.from(panel.querySelectorAll("a[href], button, input, textarea, select, summary")).filter(
      (one) => !one.disabled && one.checkVisibility(),
    );
  feedback.closePanels = () => {
    document.querySelectorAll(".fb-panel.open").forEach((panel) => {
      panel.classList.remove("open");
      for (const name of ["role", "aria-modal", "aria-labelledby"]) panel.removeAttribute(name);
    });
    document.documentElement.classList.remove("fb-veiled");
    if (opener && opener.isConnected) opener.focus();
    opener = null;
  };
  feedback.openPanel = (id, from) => {
    const panel = document.getElementById(id);
    if (!panel) return;
    feedback.closePanels();
    // Opened with a key: what had the focus gets it back.
    opener = from || (document.activeElement === document.body ? null : document.activeElement);
    const title = panel.querySelector("h2");
    title.id ||= `${id}-title`;
    panel.setAttribute("role", "dialog");
    panel.setAttribute("aria-modal", "true");
    panel.setAttribute("aria-labelledby", title.id);
    panel.classList.add("open");
    document.documentElement.classList.add("fb-veiled");
    const first = ["input:checked", "textarea", "[data-close]"].map((what) => panel.querySelector(what)).find(Boolean);
    first?.focus();
  };
  const closeMenus = (but = null) => {
    document.querySelectorAll("details.fb-menu[open]").forEach((menu) => {
      if (!menu.contains(but)) menu.removeAttribute("open");
    });
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const open = target.closest("[data-panel]");
    if (open) feedback.openPanel(open.dataset.panel, open);
    else if (target.closest("[data-close]")) feedback.closePanels();
    else if (document.documentElement.classList.contains("fb-veiled") && !target.closest(".fb-panel")) {
      feedback.closePanels();
    }
    closeMenus(target);
  });
  document.addEventListener("focusin", (event) => closeMenus(event.target));
  document.addEventListener("keydown", (event) => {
    const panel = document.querySelector(".fb-panel.open");
    if (event.key === "Escape") {
      feedback.closePanels();
      const menu = document.querySelector("details.fb-menu[open]");
      closeMenus();
      if (menu?.contains(document.activeElement)) menu.querySelector("summary").focus();
    } else if (event.key === "Tab" && panel) {
      // The page behind the veil is out of reach.
      const all = reachable(panel);
      const [first, last] = [all[0], all[all.length - 1]];
      const here = document.activeElement;
      if (panel.contains(here) && here !== (event.shiftKey ? first : last)) return;
      event.preventDefault();
      (event.shiftKey ? last : first).focus();
    }
  });

  // Gradio opens a list of choices at any key, also at the one that leaves it, and after it was left.
  const LEAVING = ["Tab", "Shift", "Control", "Alt", "Meta"];
  window.addEventListener(
    "keydown",
    (event) => {
      const chooses = event.target.matches?.("input[role=combobox], input[role=listbox]");
      if (chooses && LEAVING.includes(event.key)) event.stopPropagation();
    },
    true,
  );

  // --- for those who listen: what happened is said, without taking the focus ---
  const live = Object.assign(document.createElement("div"), { className: "fb-unseen", id: "fb-live" });
  live.setAttribute("role", "status");
  feedback.say = (line) => {
    if (!live.isConnected) document.body.append(live);
    // The same line twice is said twice.
    live.textContent = "";
    setTimeout(() => (live.textContent = line), 60);
  };

  // --- the first stop of the Tab key: past the top bar ---
  document.addEventListener("click", (event) => {
    const skip = event.target instanceof Element && event.target.closest("a.fb-skip-bar");
    if (!skip) return;
    event.preventDefault();
    const bar = document.getElementById("fb-top");
    let place = bar;
    do place = place.nextElementSibling;
    while (place && !place.checkVisibility({ visibilityProperty: true }));
    if (!place) return;
    place.tabIndex = -1;
    place.focus();
  });
})();
