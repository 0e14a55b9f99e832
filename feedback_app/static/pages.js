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
    // An event outside the queue fails without a word of Gradio's.
    if (response.status === 500 && own && response.url.includes("/run/")) {
      feedback.notice("Something went wrong; what you typed is kept. Try again, or tell an operator.");
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

  // Panels: any [data-panel] button opens the element of that id; Escape, the close button or the veil closes it.
  let opener = null;
  feedback.closePanels = () => {
    document.querySelectorAll(".fb-panel.open").forEach((panel) => panel.classList.remove("open"));
    document.documentElement.classList.remove("fb-veiled");
    if (opener && opener.isConnected) opener.focus();
    opener = null;
  };
  feedback.openPanel = (id, from) => {
    const panel = document.getElementById(id);
    if (!panel) return;
    feedback.closePanels();
    opener = from || null;
    panel.setAttribute("role", "dialog");
    panel.setAttribute("aria-modal", "true");
    panel.classList.add("open");
    document.documentElement.classList.add("fb-veiled");
    const first = panel.querySelector("textarea, input, [data-close]");
    if (first) first.focus();
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
    document.querySelectorAll("details.fb-menu[open]").forEach((menu) => {
      if (!menu.contains(target)) menu.removeAttribute("open");
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") feedback.closePanels();
  });
})();
