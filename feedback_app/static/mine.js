// My annotations: the search, the list, and the head and history of the one that is open. Everything from the server is
// set as text, never as HTML. The form of an annotation is the annotate page's own (form.js, annotate.js).
(() => {
  "use strict";
  const feedback = (window.feedback = window.feedback || {});
  const { t, plural } = feedback;
  const mine = (feedback.mine = {});
  const root = document.documentElement;
  const SAY = {
    states: { counts: t("counts"), draft: t("draft"), revised: t("revised since"), withdrawn: t("withdrawn") },
    choices: [
      ["counts", t("What counts")],
      ["draft", t("Drafts")],
      ["revised", t("Revised since")],
      ["withdrawn", t("Withdrawn")],
      ["all", t("Everything submitted")],
    ],
    outcomes: { first: t("A better"), second: t("B better"), tie: t("Tie"), both_bad: t("Both bad") },
    strengths: { 1: t("slightly"), 2: t("clearly"), 3: t("much") },
    confirm: t(
      "Take this annotation back? Nothing will be trained on it any more, models that were are marked, and somebody else gets the item. You cannot submit it again.",
    ),
  };
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children.filter((child) => child !== null && child !== ""));
    return node;
  };
  const press = (id) => document.getElementById(id)?.click();
  const verdictOf = ({ outcome, strength }) =>
    strength
      ? t("{outcome}, {strength}", { outcome: SAY.outcomes[outcome], strength: SAY.strengths[strength] })
      : SAY.outcomes[outcome];

  // Times are the reader's: their zone, their way of writing.
  const short = new Intl.DateTimeFormat(feedback.locale, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(feedback.locale, { dateStyle: "full", timeStyle: "long" });
  const time = (iso) => {
    const moment = new Date(iso);
    return make("time", { dateTime: iso, title: exact.format(moment), textContent: short.format(moment) });
  };
  const badge = (state) => {
    const node = make("span", { className: "mi-badge", textContent: SAY.states[state] });
    node.dataset.state = state;
    return node;
  };
  const note = (text) => {
    const node = make("p", { className: "mi-note", textContent: text });
    node.setAttribute("role", "status");
    return node;
  };

  // --- what is asked for ---
  const query = new URLSearchParams(location.search);
  mine.asked = () => {
    const asked = { project: query.get("project"), open: query.get("open"), last: query.has("last") };
    feedback.keep("last", "");
    return asked;
  };
  let wanted = { text: "", project: query.get("project") || "", state: "counts", since: "", until: "" };
  let after = null;
  // A day of the reader's begins at their midnight; the last one is included.
  const midnight = (day, add = 0) => {
    if (!day) return null;
    const [year, month, date] = day.split("-").map(Number);
    return new Date(year, month - 1, date + add).toISOString();
  };
  mine.wanted = () => ({ ...wanted, since: midnight(wanted.since), until: midnight(wanted.until, 1), after });
  const look = (from = null) => {
    after = from;
    press("mi-look");
  };

  // --- the search ---
  mine.filters = (element, props, watch) => {
    const box = element.querySelector(".mi-filters");
    let soon = 0;
    const change = (name, value) => {
      wanted = { ...wanted, [name]: value };
      if (name === "project") feedback.keep("project", value);
      clearTimeout(soon);
      soon = setTimeout(look, name === "text" ? 350 : 0);
    };
    const labelled = (label, control, className = "") =>
      make("label", { className: `mi-field ${className}` }, make("span", { textContent: label }), control);
    const select = (name, choices) => {
      const node = make("select", {}, ...choices.map(([value, label]) => make("option", { value, textContent: label })));
      node.value = wanted[name];
      node.addEventListener("change", () => change(name, node.value));
      return node;
    };
    const input = (name, type, props = {}) => {
      const node = make("input", { type, value: wanted[name], ...props });
      node.addEventListener("input", () => change(name, node.value));
      return node;
    };
    const draw = () => {
      const { projects = [], notice = "" } = props.value || {};
      const fields = [
        labelled(t("Search"), input("text", "search", { placeholder: t("Words that stand in it"), maxLength: 200 }), "mi-wide"),
        projects.length > 1
          ? labelled(t("Project"), select("project", [["", t("All projects")], ...projects.map((name) => [name, name])]))
          : null,
        labelled(t("State"), select("state", SAY.choices)),
        labelled(t("From"), input("since", "date")),
        labelled(t("To"), input("until", "date")),
      ];
      box.replaceChildren(...(notice ? [note(notice)] : []), make("div", { className: "mi-fields" }, ...fields));
    };
    mine.clear = () => {
      wanted = { text: "", project: "", state: "counts", since: "", until: "" };
      feedback.keep("project", "");
      draw();
      look();
    };
    watch("value", draw);
    draw();
  };

  // --- the list ---
  let chosen = null; // the one that is open
  let left = null; // the one that was
  const glance = (line) => {
    const { ranked, ratings, critiques, refinements } = line;
    const parts = [
      line.outcome ? verdictOf(line) : ranked ? plural(ranked, "{n} ranked", "{n} ranked") : "",
      ratings ? plural(ratings, "{n} rating", "{n} ratings") : "",
      critiques ? plural(critiques, "{n} critique", "{n} critiques") : "",
      refinements ? plural(refinements, "{n} rewrite", "{n} rewrites") : "",
      line.begun ? t("change begun") : "",
    ];
    return parts.filter(Boolean).join(" · ");
  };
  const row = (line, several) => {
    const link = make(
      "a",
      { className: "mi-line", href: `?open=${line.id}` },
      make(
        "span",
        { className: "mi-when" },
        time(line.at),
        several ? make("span", { className: "mi-project", textContent: line.project }) : "",
        line.state === "counts" ? "" : badge(line.state),
      ),
      make("span", { className: "mi-prompt", textContent: line.prompt, dir: "auto" }),
      make("span", { className: "mi-glance", textContent: glance(line) }),
      line.criticised ? make("span", { className: "mi-words", textContent: `“${line.criticised}”`, dir: "auto" }) : "",
    );
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      chosen = String(line.id);
      press("mi-open");
    });
    return make("li", {}, link);
  };
  const nothing = (filtered) => {
    const box = make("div", { className: "mi-empty" });
    box.setAttribute("role", "status");
    if (!filtered) {
      const go = make("a", { className: "mi-go", href: "/annotate/", textContent: t("Start annotating") });
      const text = t("Everything you submit appears here: to read again, to change, or to take back.");
      box.append(make("h2", { textContent: t("You have not judged anything yet") }), make("p", { textContent: text }), go);
      return box;
    }
    const clear = make("button", { type: "button", className: "mi-go", textContent: t("Clear the search") });
    clear.addEventListener("click", () => mine.clear());
    const text = t("Try fewer words, another state, or a longer time.");
    box.append(make("h2", { textContent: t("Nothing fits") }), make("p", { textContent: text }), clear);
    return box;
  };
  mine.lines = (element, props, watch) => {
    const box = element.querySelector(".mi-lines");
    let lines = [];
    const draw = () => {
      const value = props.value || {};
      if (!value.lines) return;
      const first = value.more ? lines.length : 0;
      lines = value.more ? [...lines, ...value.lines] : value.lines;
      if (!lines.length) return box.replaceChildren(nothing(value.filtered));
      const several = new Set(lines.map((line) => line.project)).size > 1;
      const list = make("ul", {}, ...lines.map((line) => row(line, several)));
      box.replaceChildren(list);
      if (value.following) {
        const more = make("button", { type: "button", className: "mi-more", textContent: t("Show older ones") });
        more.addEventListener("click", () => look(value.following));
        box.append(more);
      }
      if (first) list.children[first]?.firstChild.focus();
      // Back from one of them: there the eyes and the Tab key go on.
      if (left) box.querySelector(`a[href="?open=${left}"]`)?.focus();
      left = null;
    };
    watch("value", draw);
    draw();
  };

  // --- the one that is open ---
  let revising = false;
  mine.chosen = () => chosen;
  const show = (id) => {
    root.classList.toggle("mi-opened", id !== null);
    feedback.keep("open", id);
  };
  const revise = (on) => {
    revising = on;
    root.classList.toggle("mi-revising", on);
  };
  mine.head = (element, props, watch) => {
    const box = element.querySelector(".mi-head");
    const draw = () => {
      const value = props.value;
      if (!value || !value.id) {
        chosen = null;
        revise(false);
        box.replaceChildren();
        return show(null);
      }
      chosen = String(value.id);
      revise(value.revising);
      show(chosen);
      const stage = make("div", { id: "fb-stage" });
      Object.assign(stage.dataset, { state: "item", kind: value.kind });
      const back = make("button", { type: "button", className: "fb-plain", textContent: t("← All annotations") });
      back.addEventListener("click", () => {
        left = chosen;
        revise(false);
        show(null);
        look();
      });
      const title = make("h1", { tabIndex: -1 }, t("Your annotation"), " ", badge(value.state));
      const buttons = make("div", { className: "mi-buttons" });
      if (value.state === "counts") {
        const change = make("button", { type: "button", className: "mi-change", textContent: t("Change it") });
        change.addEventListener("click", () => {
          revise(true);
          title.focus(); // the button is gone
        });
        const take = make("button", { type: "button", className: "mi-take", textContent: t("Take it back…") });
        take.addEventListener("click", () => window.confirm(SAY.confirm) && press("mi-withdraw"));
        buttons.append(change, take);
      }
      if (value.state === "draft") {
        buttons.append(make("a", { className: "mi-change", href: `/annotate/?project=${encodeURIComponent(value.project)}`, textContent: t("Go on with it") }));
      }
      box.replaceChildren(back, make("div", { className: "mi-title" }, title, buttons), stage);
      if (value.notice) box.append(note(value.notice));
      if (!document.activeElement.checkVisibility() || document.activeElement === document.body) title.focus();
      // Last: it tells annotate.js that another item is here.
      stage.dataset.assignment = chosen;
    };
    watch("value", draw);
    draw();
  };

  // --- what was said, newest first ---
  const order = (places) =>
    places.map(([letter, rank], n) => (n === 0 ? letter : `${rank === places[n - 1][1] ? " = " : " > "}${letter}`)).join("");
  const told = (version) => {
    const list = make("dl", {});
    const add = (name, ...what) => list.append(make("dt", { textContent: name }), make("dd", { dir: "auto" }, ...what));
    if (version.outcome) {
      add(t("Verdict"), verdictOf(version));
    }
    if (version.order.length) add(t("Order"), order(version.order));
    const ratings = new Map();
    for (const [letter, name, value] of version.ratings) ratings.set(name, [...(ratings.get(name) || []), `${letter} ${value}`]);
    for (const [name, values] of ratings) add(name, values.sort().join(" · "));
    for (const one of version.critiques) {
      const words = [
        one.quote ? make("q", { className: "mi-quote", textContent: one.quote }) : "",
        one.text ? make("p", { textContent: one.text }) : "",
        one.tags.length ? make("p", { className: "mi-tags", textContent: one.tags.join(", ") }) : "",
        one.fix ? make("p", { textContent: t("Better: {fix}", { fix: one.fix }) }) : "",
      ];
      add(t("Critique of {letter}", { letter: one.of }), ...words);
    }
    for (const one of version.refinements) add(t("{letter} rewritten", { letter: one.of }), make("p", { textContent: one.text }));
    if (!list.children.length) return make("p", { className: "mi-blank", textContent: t("Nothing was submitted.") });
    return list;
  };
  mine.said = (element, props, watch) => {
    const box = element.querySelector(".mi-said");
    const draw = () => {
      const versions = props.value?.versions || [];
      const articles = versions.map((version, n) => {
        const head = make("header", {}, time(version.at), n === 0 && version.state === "counts" ? "" : badge(version.state));
        return make("article", {}, head, told(version));
      });
      const title = versions.length > 1
          ? t("What you said ({n} versions)", { n: versions.length })
          : t("What you said");
      box.replaceChildren(...(versions.length ? [make("h2", { textContent: title }), ...articles] : []));
    };
    watch("value", draw);
    draw();
  };

  // --- the form's scripts run here too, but only while something is being changed ---
  document.addEventListener(
    "keydown",
    (event) => {
      const escape = event.key === "Escape";
      if (!revising && !escape) event.stopPropagation();
    },
    true,
  );
})();
