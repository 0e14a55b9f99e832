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

  // The server writes times in this zone.
  if (own.timeZone) document.cookie = `feedback_zone=${own.timeZone}; path=/; max-age=31536000; samesite=lax`;
})();
