// Words of texts: what differs between two, and where a passage of a rendered text stands in its Markdown source.
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});

  // A run of letters and digits, one character of a script without spaces, a run of white space, or one other sign.
  const EAST = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}";
  const TOKEN = new RegExp(`[${EAST}]|(?:(?![${EAST}])[\\p{L}\\p{N}\\p{M}_])+|\\s+|[^]`, "gu");
  // Edits searched for; texts that differ in more are shown as wholly new. Keeps the search within a frame or two.
  const MOST_EDITS = 800;

  const tokens = (text, start = 0) =>
    Array.from(text.matchAll(TOKEN), (found) => ({
      text: found[0],
      start: start + found.index,
      end: start + found.index + found[0].length,
    }));
  const solid = (list) => list.filter((token) => token.text.trim() !== "");

  /** For each token of `a` its partner's number in `b`, or -1: a longest common subsequence (Myers, 1986). */
  const matched = (a, b) => {
    const to = new Array(a.length).fill(-1);
    const same = (i, j) => a[i].text === b[j].text;
    let low = 0;
    while (low < a.length && low < b.length && same(low, low)) to[low] = low++;
    let endA = a.length;
    let endB = b.length;
    while (endA > low && endB > low && same(endA - 1, endB - 1)) to[--endA] = --endB;
    const n = endA - low;
    const m = endB - low;
    if (n === 0 || m === 0) return to;
    const most = Math.min(n + m, MOST_EDITS);
    const reach = new Int32Array(2 * most + 3);
    const at = most + 1;
    const trace = [];
    const down = (value, d, k) => k === -d || (k !== d && value(k - 1) < value(k + 1));
    for (let d = 0; d <= most; d++) {
      trace.push(reach.slice(at - d - 1, at + d + 2));
      for (let k = -d; k <= d; k += 2) {
        let x = down((i) => reach[at + i], d, k) ? reach[at + k + 1] : reach[at + k - 1] + 1;
        while (x < n && x - k < m && same(low + x, low + x - k)) x++;
        reach[at + k] = x;
        if (x < n || x - k < m) continue;
        let y = m;
        for (; d >= 0; d--) {
          const before = (i) => trace[d][i + d + 1];
          const from = down(before, d, x - y) ? x - y + 1 : x - y - 1;
          const x0 = before(from);
          const y0 = x0 - from;
          while (x > x0 && y > y0) to[low + --x] = low + --y;
          x = x0;
          y = y0;
        }
        return to;
      }
    }
    return to;
  };

  /** [{kind: "same" | "gone" | "new", text}], whole words, what went before what came. */
  feedback.difference = (before, after) => {
    const a = tokens(before);
    const b = tokens(after);
    const to = matched(a, b);
    const parts = [];
    let gone = "";
    let came = "";
    const flush = () => {
      if (gone) parts.push({ kind: "gone", text: gone });
      if (came) parts.push({ kind: "new", text: came });
      gone = came = "";
    };
    let j = 0;
    for (let i = 0; i <= a.length; i++) {
      const until = i < a.length ? to[i] : b.length;
      if (until === -1) {
        gone += a[i].text;
        continue;
      }
      while (j < until) came += b[j++].text;
      if (i === a.length) break;
      j++;
      // A blank between two changed words belongs to the change.
      const next = to[i + 1];
      const changing = gone !== "" || came !== "";
      if (changing && a[i].text.trim() === "" && i + 1 < a.length && next !== j) {
        gone += a[i].text;
        came += a[i].text;
        continue;
      }
      flush();
      const last = parts[parts.length - 1];
      if (last && last.kind === "same") last.text += a[i].text;
      else parts.push({ kind: "same", text: a[i].text });
    }
    flush();
    return parts;
  };

  /** The tokens of a rendered text, node by node, so that words of two blocks never become one. */
  const viewTokens = (nodes) => nodes.flatMap((node) => tokens(node.text, node.start));

  /**
   * Where the passage [start, end) of a rendered text stands in its source: [start, end) in UTF-16 units, whole words;
   * null where none of its words is in the source. `nodes` are the rendered text's pieces as {text, start}.
   */
  feedback.sourceOf = (nodes, source, start, end) => {
    const view = solid(viewTokens(nodes));
    const raw = solid(tokens(source));
    const to = matched(view, raw);
    const inside = view.map((token, i) => (token.end > start && token.start < end ? to[i] : -1)).filter((i) => i >= 0);
    return inside.length ? whole(source, raw[inside[0]].start, raw[inside[inside.length - 1]].end) : null;
  };

  // "parcel** left" is no passage that anybody reads: signs of emphasis beside it are taken in where that pairs them.
  const whole = (source, start, end) => {
    const unpaired = (low, high) => {
      const open = [];
      for (const [run] of source.slice(low, high).matchAll(/([*_`~])\1*/g)) {
        if (open.includes(run)) open.splice(open.indexOf(run));
        else open.push(run);
      }
      return open.length;
    };
    const before = start - source.slice(0, start).match(/[*_`~]*$/)[0].length;
    const after = end + source.slice(end).match(/^[*_`~]*/)[0].length;
    const ways = [[start, end], [before, end], [start, after], [before, after]];
    const fewest = Math.min(...ways.map((way) => unpaired(...way)));
    return ways.find((way) => unpaired(...way) === fewest);
  };

  /** The other way round: where [start, end) of the source stands in the rendered text; null where it shows nowhere. */
  feedback.viewOf = (nodes, source, start, end) => {
    const view = solid(viewTokens(nodes));
    const raw = solid(tokens(source));
    const to = matched(raw, view);
    const inside = raw.map((token, i) => (token.end > start && token.start < end ? to[i] : -1)).filter((i) => i >= 0);
    return inside.length ? [view[inside[0]].start, view[inside[inside.length - 1]].end] : null;
  };

  // The store counts characters (code points), the browser UTF-16 units.
  feedback.toPoints = (text, units) => Array.from(text.slice(0, units)).length;
  feedback.toUnits = (text, points) => Array.from(text).slice(0, points).join("").length;
})();
