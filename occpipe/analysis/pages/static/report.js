/** @import { Entry, PageData, Pick } from "./types" */

import { byId, DATA, el, keys, pageHead, percent, plural, SCANNED, score, whole } from "./dom.js";
import { Gallery } from "./gallery.js";
import { bars, histogram, panel, parts, tile } from "./plots.js";
import { whyCard } from "./why.js";

const FIGURES = DATA.figures;

/** A scan has written no picture, so that its page is in the future tense. */
const PLANNED = FIGURES.status.scanned > 0 && FIGURES.status.cleaned === 0;
const GONE = PLANNED ? "to be removed" : "removed";
const FILLED = PLANNED ? "to be filled" : "filled";

/**
 * The things of an entry with why they were decided as they were, and the rest of the row.
 * @param {Entry} entry
 * @param {Pick} pick
 */
function reportAside(entry, pick) {
  const { view, removed, stuff, size } = entry;
  return [
    el(
      "div",
      { class: "facts" },
      el("span", { class: `status ${entry.status}` }, entry.status),
      entry.shows.map((what) => el("span", { class: "chip" }, what)),
    ),
    entry.error != null && el("p", { class: "message" }, `${entry.reason}: ${entry.error}`),
    entry.note != null && el("p", { class: "message" }, entry.note),
    entry.objects.map((_, place) => whyCard(entry, place, pick)),
    entry.more > 0 && el("p", {}, `${plural(entry.more, "thing")} more, not listed here.`),
    view && !entry.objects.length && el("p", {}, "No thing was seen in this photo."),
    stuff.length > 0 &&
      el("p", { class: "stuff" }, "Stuff: ", stuff.map(([label, sure]) => `${label} ${score(sure)}`).join(", ")),
    view &&
      el("p", { class: "stuff" }, `${size[0]} × ${size[1]} pixels${removed ? `, ${percent(removed)} ${entry.status === SCANNED ? "to be filled" : "filled"}` : ""}`),
  ];
}

function headline() {
  const { status, images, things, gone, area } = FIGURES;
  const of = (/** @type {number} */ count) => (images ? percent(count / images) : "");
  return el(
    "ul",
    { class: "tiles" },
    tile(whole(images), "images"),
    !PLANNED && tile(whole(status.cleaned), "cleaned", of(status.cleaned), "cleaned"),
    tile(whole(status.unchanged), "unchanged", of(status.unchanged)),
    status.scanned > 0 && tile(whole(status.scanned), "to be cleaned", of(status.scanned)),
    tile(whole(status.skipped), "skipped", of(status.skipped)),
    tile(whole(status.error), "errors", of(status.error), status.error ? "error" : ""),
    tile(whole(things), "things seen", images ? `${(things / images).toFixed(1)} an image` : ""),
    tile(whole(gone), GONE, things ? `${percent(gone / things)} of the things` : "", "cleaned"),
    tile(percent(area), FILLED, PLANNED ? "of an image to be cleaned" : "of a cleaned image"),
  );
}

/**
 * The figures of the verdicts files.
 * @param {NonNullable<PageData["people"]>} people
 */
function peoplePanel(people) {
  const rows = people.map(([what, figure, interval]) =>
    el("tr", {}, el("th", { scope: "row" }, what), el("td", {}, figure), el("td", {}, el("small", {}, interval))),
  );
  return panel("Verdicts of people", "with 95% intervals", el("table", { class: "people" }, el("tbody", {}, rows)));
}

function main() {
  const gallery = new Gallery({
    filters: ["text", "status", "label", "reason", "least", "most"],
    aside: reportAside,
  });
  const show = (/** @type {string} */ name) => (/** @type {string} */ value) => {
    gallery.filters.only(name, value);
    gallery.node.scrollIntoView();
    gallery.node.focus({ preventScroll: true });
  };
  /** @type {Record<string, string>} */
  const kindOf = { unrelated: "gone", removed_by_policy: "gone", removed_by_review: "gone" };
  byId("head").append(pageHead("report", DATA.about));
  byId("main").append(
    headline(),
    el(
      "div",
      { class: "panels" },
      panel(
        "Relation of the things",
        "0 = does not belong, 1 = belongs; bar heights are square roots of counts",
        histogram(FIGURES.histogram, DATA.policy?.cut, GONE),
      ),
      panel(
        PLANNED ? "To be removed, by class" : "Removed, by class",
        "of all rows",
        bars(
          FIGURES.removed.map(([name, n]) => [name, n, "gone"]),
          show("label"),
        ),
      ),
      panel(
        PLANNED ? "Why things stay or go" : "Why things stayed or went",
        "of all rows",
        bars(
          FIGURES.reasons.map(([name, n]) => [name, n, kindOf[name ?? ""]]),
          show("reason"),
        ),
      ),
      panel(
        "What became of the images",
        "of all rows",
        parts(
          Object.entries(FIGURES.status).filter(([status, count]) => count || status !== "scanned"),
          FIGURES.images,
        ),
        FIGURES.failures.length > 0 && bars(FIGURES.failures, show("reason")),
      ),
      DATA.people && peoplePanel(DATA.people),
    ),
    el("h2", { class: "above" }, "Worth a look"),
    el(
      "p",
      { class: "note" },
      `${plural(DATA.entries.length, "image")} of ${whole(FIGURES.images)}: removals of each class, things near the cut, large areas, failures, and some that stayed as they were. ${PLANNED ? "This is a scan: nothing was removed yet." : "Point at a cleaned one to see the result."}`,
    ),
    gallery.node,
    keys({ "n → / p ←": "next, previous", f: "filled area", o: "outlines", l: "names", "/": "search", Esc: "close" }),
  );
  gallery.openNamed();
}

main();
