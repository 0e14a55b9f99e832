// Marking a passage of a completion: select it (mouse, touch, or keys in the plain text) and criticise it.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const SKIP = "button, .icon-button-wrapper, .katex-mathml, style, script";

  /** The rendered text of a side, piece by piece: {node, text, start}. */
  const pieces = (side) => {
    const root = side.querySelector(".fb-text .prose");
    const found = [];
    if (!root) return found;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    let start = 0;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (node.parentElement.closest(SKIP)) continue;
      found.push({ node, text: node.data, start });
      start += node.data.length;
    }
    return found;
  };

  /** What is selected in the rendered text: {side, range, start, end} in its characters, or null. */
  const rendered = () => {
    const selection = document.getSelection();
    if (!selection || selection.isCollapsed || selection.rangeCount === 0) return null;
    const range = selection.getRangeAt(0);
    const from = range.startContainer;
    const side = (from instanceof Element ? from : from.parentElement)?.closest(".fb-side");
    if (!side) return null;
    let start = null;
    let end = null;
    const nodes = pieces(side);
    for (const { node, text, start: at } of nodes) {
      if (!range.intersectsNode(node)) continue;
      const low = node === range.startContainer ? range.startOffset : 0;
      const high = node === range.endContainer ? range.endOffset : text.length;
      if (text.slice(low, high).trim() === "") continue;
      if (start === null) start = at + low;
      end = at + high;
    }
    return start === null ? null : { side, nodes, range, start, end };
  };

  /** What is selected in a plain text view. */
  const plain = () => {
    const field = document.activeElement;
    if (!(field instanceof HTMLTextAreaElement) || !field.matches(".fb-plain-text textarea")) return null;
    const { selectionStart: start, selectionEnd: end, value } = field;
    if (value.slice(start, end).trim() === "") return null;
    return { side: field.closest(".fb-side"), nodes: [{ text: value, start: 0 }], field, start, end };
  };

  const selected = () => plain() || rendered();

  const button = document.createElement("button");
  button.id = "fb-criticise";
  button.type = "button";
  button.hidden = true;
  const label = document.createElement("span");
  label.textContent = feedback.t("Criticise this passage");
  const key = document.createElement("kbd");
  key.textContent = "C";
  button.append(label);
  if (!window.matchMedia("(hover: none)").matches) button.append(key);
  // The selection must outlive the press.
  button.addEventListener("pointerdown", (event) => event.preventDefault());
  button.addEventListener("click", () => feedback.criticiseSelection());

  const follow = () => {
    const found = feedback.mayCriticise?.() ? selected() : null;
    button.hidden = found === null;
    if (found === null) return;
    if (!button.isConnected) document.body.append(button);
    const box = (found.range || found.field).getBoundingClientRect();
    const width = button.offsetWidth;
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
    const bar = document.getElementById("fb-actions")?.getBoundingClientRect().top ?? window.innerHeight;
    const top = Math.max(8, Math.min(box.bottom + 8, bar - button.offsetHeight - 8));
    button.style.left = `${left}px`;
    button.style.top = `${top}px`;
  };
  let soon = 0;
  const later = () => {
    cancelAnimationFrame(soon);
    soon = requestAnimationFrame(follow);
  };
  feedback.followSelection = later;
  document.addEventListener("selectionchange", later);
  document.addEventListener("scroll", later, { passive: true, capture: true });

  /** Open a critique on what is selected; false where nothing is. */
  feedback.criticiseSelection = () => {
    const found = feedback.mayCriticise?.() ? selected() : null;
    if (!found) return false;
    const number = feedback.sideNumber(found.side);
    const source = feedback.sourceText(number);
    const span = feedback.sourceOf(found.nodes, source, found.start, found.end);
    if (!span) {
      // Nothing of it stands in the source as it is shown (a formula): the plain text can be marked exactly.
      feedback.showPlain(number, true);
      return false;
    }
    document.getSelection()?.removeAllRanges();
    button.hidden = true;
    feedback.criticise(number, feedback.toPoints(source, span[0]), feedback.toPoints(source, span[1]));
    return true;
  };

  // --- marks in the text: the browser's own highlights leave the rendered text alone ---
  feedback.drawMarks = (sides) => {
    if (!window.CSS || !CSS.highlights) return;
    const ranges = [];
    sides.forEach(({ text, critiques }, number) => {
      const marked = critiques.filter((one) => one.start !== null);
      const side = marked.length ? feedback.sideElement(number) : null;
      if (!side) return;
      const nodes = pieces(side);
      for (const { start, end } of marked) {
        const units = [feedback.toUnits(text, start), feedback.toUnits(text, end)];
        const where = feedback.viewOf(nodes, text, ...units);
        if (!where) continue;
        const first = nodes.findLast((piece) => piece.start <= where[0]);
        const last = nodes.findLast((piece) => piece.start < where[1]);
        const range = new Range();
        range.setStart(first.node, where[0] - first.start);
        range.setEnd(last.node, Math.min(where[1] - last.start, last.text.length));
        ranges.push(range);
      }
    });
    CSS.highlights.set("fb-passage", new Highlight(...ranges));
  };
})();
