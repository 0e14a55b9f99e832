// The first script of a page: its language, which Gradio follows too, the words of our scripts, and the time zone.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const language = document.documentElement.lang || "en";
  // How numbers and times are written: the browser's way where it speaks the page's language.
  const own = Intl.DateTimeFormat().resolvedOptions();
  feedback.locale = own.locale.split("-")[0] === language.split("-")[0] ? own.locale : language;
  // Gradio asks the browser for a language; the person may have chosen another one here.
  Object.defineProperty(navigator, "language", { value: language, configurable: true });
  Object.defineProperty(navigator, "languages", { value: [language], configurable: true });

  /** `text` in the page's language, with `values` in the places of their names: t("Rewrite {letter}", {letter}). */
  feedback.t = (text, values = {}) =>
    (feedback.words?.[text] ?? text).replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
  /** `one` or `many` as English has it for `n`. */
  feedback.plural = (n, one, many, values = {}) =>
    feedback.t(n === 1 ? one : many, { n: n.toLocaleString(feedback.locale), ...values });

  // Words that style sheets put on a page.
  const words = {
    user: feedback.t("User"),
    assistant: feedback.t("Assistant"),
    "judge-first": feedback.t("Judge first; critiques and rewrites open then."),
  };
  for (const [name, word] of Object.entries(words)) {
    document.documentElement.style.setProperty(`--fb-say-${name}`, JSON.stringify(word));
  }

  // What Gradio and the charts call their parts in English, whatever the language, for those who listen.
  const NAMES = ["aria-label", "title"];
  const theirs = ["chatbot conversation", "Click to upload or drop files", "Close", "Export", "Fullscreen", "More tabs"];
  theirs.push("Table actions", "Vega visualization");
  const named = Object.fromEntries(theirs.map((name) => [name, feedback.t(name)]));
  const speaker = /^(user|bot)'s message: /;
  const rename = (node) => {
    for (const name of NAMES) {
      const said = node.getAttribute(name);
      const ours = named[said] ?? said?.replace(speaker, (_, who) => `${words[who === "user" ? who : "assistant"]}: `);
      if (ours && ours !== said) node.setAttribute(name, ours);
    }
    // A message of Gradio's is no button with a button in it. A choice has its label; its tooltip is its name in code. Of a chart the whole has a name, not each line of it.
    if (node.matches(".toast-header")) for (const name of ["role", "tabindex"]) node.removeAttribute(name);
    if (node.matches("label > input[title]")) node.removeAttribute("title");
    if (node.matches("[aria-roledescription=visualization]:not([role=img])")) node.setAttribute("role", "img");
  };
  const look = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    rename(node);
    node.querySelectorAll("[aria-label], [title], .toast-header").forEach(rename);
  };
  new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "attributes") rename(target);
      else addedNodes.forEach(look);
    }
  }).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: NAMES });

  // The server writes times in this zone.
  if (own.timeZone) document.cookie = `feedback_zone=${own.timeZone}; path=/; max-age=31536000; samesite=lax`;
})();
