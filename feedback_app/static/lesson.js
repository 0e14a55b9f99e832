// Practice on the annotate page: while a lesson is shown, Enter goes on and no key reaches the answered item.
(() => {
  "use strict";
  const shown = () => document.querySelector('#fb-stage[data-lesson="shown"]');
  const go = () => document.getElementById("fb-go");
  document.addEventListener(
    "keydown",
    (event) => {
      if (!shown() || document.querySelector(".fb-panel.open") || event.key === "Tab" || event.key === "?") return;
      const inside = event.target instanceof Element && event.target.closest("button, a, summary, input, textarea");
      if (event.key === "Enter" && !event.repeat && (event.ctrlKey || event.metaKey || !inside)) {
        event.preventDefault();
        go()?.click();
      }
      event.stopPropagation(); // what the browser does by itself, as Enter on a button, still happens
    },
    true,
  );
  // The lesson has the focus when it comes, so that it is read out and Enter goes on.
  new MutationObserver(() => {
    if (shown()) requestAnimationFrame(() => go()?.focus({ preventScroll: true }));
  }).observe(document.documentElement, { subtree: true, attributes: true, attributeFilter: ["data-lesson"] });
})();
