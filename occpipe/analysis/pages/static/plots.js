/** @import { Child, Count, Histogram } from "./types" */

import { el, percent, score, svg, whole } from "./dom.js";

/**
 * A headline figure: a number, what it counts, and a line below.
 * @param {string} value
 * @param {string} what
 * @param {string} [note]
 */
export function tile(value, what, note, kind = "") {
  return el(
    "li",
    { class: `tile ${kind}` },
    el("strong", {}, value),
    el("span", {}, what),
    el("small", {}, note ?? ""),
  );
}

/**
 * A plot with its heading.
 * @param {string} heading
 * @param {string} note
 * @param {Child[]} content
 */
export function panel(heading, note, ...content) {
  return el("section", { class: "panel" }, el("h2", {}, heading), note && el("p", { class: "note" }, note), content);
}

/**
 * Bars by name, longest first: [name, count, kind]. With `pick` each is a button that filters the gallery.
 * A name of null stands for all others.
 * @param {[...Count, kind?: string][]} rows
 * @param {(name: string) => void} [pick]
 */
export function bars(rows, pick) {
  if (!rows.length) return el("p", { class: "none" }, "none");
  const most = Math.max(...rows.map((row) => row[1]));
  const line = (/** @type {[...Count, kind?: string]} */ [name, count, kind]) => {
    const inside = [
      el("span", { class: "name" }, name ?? "others"),
      svg(
        "svg",
        { class: `bar ${kind ?? ""}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { width: Math.max(0.7, (100 * count) / most), height: 10, rx: 1 }),
      ),
      el("span", { class: "count" }, whole(count)),
    ];
    const text = `${name ?? "others"}: ${whole(count)}`;
    return el(
      "li",
      {},
      pick && name !== null
        ? el(
            "button",
            { type: "button", "aria-label": `${text}, show in the gallery`, click: () => pick(name) },
            inside,
          )
        : el("div", {}, inside),
    );
  };
  const list = el("ul", { class: "bars" }, rows.slice(0, 8).map(line));
  const rest = rows.slice(8);
  return rest.length
    ? [list, el("details", {}, el("summary", {}, `${rest.length} more`), el("ul", { class: "bars" }, rest.map(line)))]
    : list;
}

/**
 * Things by relation, stacked by what was decided, with the cut; `gone` is what became of the unrelated. Heights are square
 * roots, or rare removals vanish.
 * @param {Histogram} counts
 * @param {number | null | undefined} cut
 * @param {string} gone
 */
export function histogram(counts, cut, gone) {
  const kinds = /** @type {(keyof Histogram)[]} */ (["unrelated", "related", "other"]);
  const bins = counts.related.map((_, bin) => kinds.map((kind) => counts[kind][bin]));
  const totals = bins.map((bin) => bin.reduce((a, b) => a + b, 0));
  const most = Math.sqrt(Math.max(1, ...totals));
  const drawing = svg("svg", {
    viewBox: `0 0 ${bins.length} 40`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": describe(counts, cut, gone),
  });
  bins.forEach((bin, x) => {
    const height = (40 * Math.sqrt(totals[x])) / most;
    let y = 40;
    bin.forEach((count, kind) => {
      const part = totals[x] ? (height * count) / totals[x] : 0;
      y -= part;
      if (part) drawing.append(svg("rect", { class: kinds[kind], x: x + 0.08, y, width: 0.84, height: part }));
    });
  });
  const marks = [0, 0.25, 0.5, 0.75, 1].map((at) => el("span", { vars: { "--at": at } }, String(at)));
  return [
    el(
      "div",
      { class: "histogram" },
      drawing,
      cut != null &&
        el(
          "span",
          { class: `cut ${cut > 0.6 ? "left" : ""}`, vars: { "--at": cut } },
          el("b", {}, `cut ${score(cut)}`),
        ),
    ),
    el("div", { class: "axis", "aria-hidden": "true" }, marks),
    legend([
      ["unrelated", `${gone} as unrelated`],
      ["related", "kept as related"],
      ["other", "decided by policy, size or doubt"],
    ]),
  ];
}

/**
 * @param {Histogram} counts
 * @param {number | null | undefined} cut
 * @param {string} gone
 */
function describe(counts, cut, gone) {
  const sum = (/** @type {keyof Histogram} */ kind) => whole(counts[kind].reduce((a, b) => a + b, 0));
  const at = cut == null ? "" : `, cut ${score(cut)}`;
  return `Things by relation from 0 to 1${at}: ${sum("unrelated")} ${gone} as unrelated, ${sum("related")} kept as related`;
}

/** @param {[kind: string, text: string][]} items */
function legend(items) {
  return el(
    "ul",
    { class: "legend" },
    items.map(([kind, text]) => el("li", {}, el("i", { class: kind }), text)),
  );
}

/**
 * One bar in parts, with a legend that has the figures.
 * @param {[kind: string, count: number][]} items
 * @param {number} total
 */
export function parts(items, total) {
  const segments = items.filter(([, count]) => count);
  let x = 0;
  const drawing = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [kind, count] of segments) {
    const width = (100 * count) / total;
    drawing.append(svg("rect", { class: kind, x, width, height: 10 }));
    x += width;
  }
  const share = (/** @type {number} */ count) => percent(total ? count / total : 0);
  const lines = items.map(
    ([kind, count]) => /** @type {[string, string]} */ ([kind, `${kind} ${whole(count)} (${share(count)})`]),
  );
  return [el("div", { class: "parts" }, drawing), legend(lines)];
}
