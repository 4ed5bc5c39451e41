/** @import { Context, Entry, Pick, Policy, Thing } from "./types" */

import { DATA, el, percent, REMOVE, SCANNED, score, signed, svg } from "./dom.js";

/**
 * Whether another thing of the same class stands before this one: both have the same context.
 * @param {Entry} entry
 * @param {number} place
 */
function isRepeated(entry, place) {
  return entry.objects.findIndex((item) => item.label === entry.objects[place].label) < place;
}

/**
 * The name of a thing as a button that has it stand out in the picture, or none.
 * @param {Thing} item
 * @param {Pick} onPick
 * @returns {HTMLButtonElement}
 */
export function nameButton(item, onPick) {
  const pick = el(
    "button",
    {
      type: "button",
      class: "pick",
      "aria-pressed": "false",
      "aria-label": `${item.label}: show in the picture`,
      click: () => onPick(pick.getAttribute("aria-pressed") === "true" ? null : item.index),
    },
    el("i", { vars: { "--colour": item.colour } }),
    item.label,
  );
  return pick;
}

/**
 * Why the thing at a place was kept or removed: its score beside the cut, and what each class around it adds.
 * @param {Entry} entry
 * @param {number} place
 * @param {Pick} onPick
 */
export function whyCard(entry, place, onPick) {
  const policy = /** @type {Policy} */ (DATA.policy); // a blind page, which has none, shows no such card
  const item = entry.objects[place];
  const repeated = isRepeated(entry, place);
  const gone = entry.status === SCANNED ? "would be removed" : "removed";
  const verdict = el("span", { class: `verdict ${item.verdict}` }, item.verdict === REMOVE ? gone : "kept");
  return el(
    "article",
    { class: `why ${item.verdict}`, "data-index": item.index },
    el("h3", {}, nameButton(item, onPick), verdict),
    el(
      "p",
      {},
      sentence(item, policy),
      repeated && item.why.length > 0 && el("small", {}, " What is around it: see above."),
    ),
    item.classes.length > 1 && el("p", { class: "classes" }, el("small", {}, mayBe(item.classes))),
    item.relation != null && scale(item.relation, policy.cut),
    item.why.length > 0 && !repeated && context(item.why),
  );
}

/**
 * What a thing may be, the most probable first.
 * @param {[string, number][]} classes
 */
function mayBe(classes) {
  return `Seen as ${classes.map(([name, sure]) => `${name} ${score(sure)}`).join(", ")}.`;
}

/**
 * @param {Thing} item
 * @param {Policy} policy
 */
function sentence(item, policy) {
  const cut = policy.cut == null ? "the cut" : `the cut of ${score(policy.cut)}`;
  const area = `${percent(item.area)} of the photo`;
  switch (item.reason) {
    case "unrelated":
      return `It does not belong here: its relation of ${score(item.relation)} is below ${cut}.`;
    case "related":
      return `It belongs here: its relation of ${score(item.relation)} is not below ${cut}.`;
    case "too_small":
      return `It is too small: ${area}, the limit is ${percent(policy.min_area)}.`;
    case "too_large":
      return `It is too large: ${area}, the limit is ${percent(policy.max_area)}.`;
    case "low_confidence":
      return `Its confidence is too low: ${score(item.score)}, the limit is ${score(policy.min_score)}.`;
    case "no_context":
      return `It has too little context: ${item.why.length} ${item.why.length === 1 ? "class" : "classes"}.`;
    default:
      return `It is ${(item.reason ?? "").replaceAll("_", " ")}.`;
  }
}

/**
 * The relation on a line from 0 to 1, with the cut.
 * @param {number} relation
 * @param {number | null | undefined} cut
 */
function scale(relation, cut) {
  return el(
    "div",
    {
      class: "scale",
      role: "img",
      "aria-label": `relation ${score(relation)}${cut == null ? "" : `, cut ${score(cut)}`}`,
    },
    cut != null && el("span", { class: "cut", vars: { "--at": cut } }),
    el("span", { class: "dot", vars: { "--at": Math.min(1, Math.max(0, relation)) } }),
  );
}

/**
 * The classes around a thing, nearest first; shares as bars to both sides.
 * @param {Context[]} classes
 */
function context(classes) {
  const shares = classes.map(([, , share]) => share).filter((share) => share != null);
  const most = Math.max(0.01, ...shares.map(Math.abs));
  const line = (/** @type {Context} */ [name, alone, share], /** @type {number} */ place) => {
    const end = place === 0 ? "nearest" : place === classes.length - 1 ? "farthest" : "";
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, name, classes.length > 1 && end && el("small", {}, ` ${end}`)),
      el("td", {}, score(alone)),
      shares.length > 0 && el("td", {}, share == null ? "–" : signed(share)),
      shares.length > 0 &&
        el(
          "td",
          { class: "share" },
          svg(
            "svg",
            { viewBox: "-50 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
            svg("rect", {
              class: share != null && share < 0 ? "against" : "for",
              x: Math.min(0, (50 * (share ?? 0)) / most),
              width: (50 * Math.abs(share ?? 0)) / most,
              y: 1,
              height: 8,
            }),
            svg("line", { y2: 10 }),
          ),
        ),
    );
  };
  const heads = ["around it", "alone", ...(shares.length ? ["adds", "against · for"] : [])];
  return el(
    "table",
    { class: "context" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        heads.map((head) => el("th", { scope: "col" }, head)),
      ),
    ),
    el("tbody", {}, classes.map(line)),
  );
}
