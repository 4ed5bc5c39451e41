/** @import { Child, Entry, Pick, Thing } from "./types" */

import { announce, byId, DATA, el, keys, pageHead, plural } from "./dom.js";
import { Gallery } from "./gallery.js";
import { Verdicts } from "./verdicts.js";
import { nameButton, whyCard } from "./why.js";

const VERDICTS = new Verdicts();
/** @type {Record<string, string>} */
const GRADES = { 1: "spoilt", 2: "poor", 3: "fair", 4: "good", 5: "as if real" };

const NO_PICTURE = "No picture was made: what is marked would be filled.";

/**
 * The entry as a rater may see it: where the page is blind, without its result until every thing is judged.
 * @param {Entry} entry
 */
function visible(entry) {
  if (!DATA.blind || VERDICTS.of(entry).seen) return entry;
  return { ...entry, after: null, mask: "" };
}

/**
 * @param {Entry} entry
 * @param {Pick} pick
 * @param {() => void} redraw
 * @returns {Child[]}
 */
function reviewAside(entry, pick, redraw) {
  const full = DATA.entries.find((one) => one.id === entry.id) ?? entry;
  const rating = VERDICTS.of(entry);
  const hidden = DATA.blind && !rating.seen;
  const judge = (/** @type {Thing} */ item, /** @type {string} */ verdict) => {
    VERDICTS.put(entry, { things: { ...VERDICTS.of(entry).things, [item.index]: verdict } });
    progress();
    redraw();
  };
  return [
    el("p", {}, "What belongs in this photo, and what should go?"),
    entry.objects.map((item) =>
      thingCard(entry, item, pick, (verdict) => judge(item, verdict), DATA.blind && rating.seen),
    ),
    !entry.objects.length && el("p", {}, "No thing was seen here."),
    DATA.blind && rating.seen && !full.after && el("p", {}, full.mask ? NO_PICTURE : "Nothing was changed."),
    hidden &&
      el(
        "button",
        {
          type: "button",
          id: "unveil",
          disabled: !VERDICTS.judged(entry),
          click: () => {
            VERDICTS.put(entry, { seen: true });
            progress();
            redraw();
          },
        },
        VERDICTS.judged(entry) ? "See the result" : "Judge every thing to see the result",
      ),
    entry.after &&
      choices("How good is the result?", "grade", GRADES, rating.grade, (grade) => {
        VERDICTS.put(entry, { grade: Number(grade) });
        progress();
        redraw();
      }),
    entry.note && el("p", { class: "message" }, entry.note),
  ];
}

/**
 * A thing with the choice to keep or remove it; what occpipe decided beside it, unless the page is blind.
 * @param {Entry} entry
 * @param {Thing} item
 * @param {Pick} pick
 * @param {(verdict: string) => void} judge
 * @param {boolean} locked
 */
function thingCard(entry, item, pick, judge, locked) {
  const verdict = VERDICTS.of(entry).things[item.index];
  const card = DATA.blind
    ? el("article", { "data-index": item.index }, el("h3", {}, nameButton(item, pick)))
    : whyCard(entry, entry.objects.indexOf(item), pick);
  card.className = `why ${verdict ?? "unjudged"}`;
  const words = { keep: "keep", remove: "remove" };
  card.append(choices("Your verdict", `thing-${item.index}`, words, verdict, judge, locked));
  return card;
}

/**
 * Radio buttons in a line.
 * @param {string} legendText
 * @param {string} name
 * @param {Record<string, string>} values - Value to text.
 * @param {string | number | null} choice
 * @param {(value: string) => void} choose
 */
function choices(legendText, name, values, choice, choose, locked = false) {
  return el(
    "fieldset",
    { class: "choices", disabled: locked },
    el("legend", {}, legendText),
    Object.entries(values).map(([value, text]) => {
      const id = `${name}-${value}`;
      const radio = el("input", { type: "radio", name, id, value, change: () => choose(value) });
      radio.checked = String(choice) === value;
      return el("label", { for: id }, radio, name === "grade" ? `${value} ${text}` : text);
    }),
  );
}

const bar = el("progress", { max: Math.max(1, DATA.entries.length), "aria-label": "Done" });
const doneText = el("span", { class: "count" });

function progress() {
  const done = DATA.entries.filter((entry) => VERDICTS.done(entry)).length;
  bar.value = done;
  doneText.textContent = `${done} of ${plural(DATA.entries.length, "picture")} done`;
}

/**
 * K and R judge the next thing, digits grade.
 * @param {KeyboardEvent} event
 * @param {Entry} entry
 */
function reviewKey(event, entry) {
  const rating = VERDICTS.of(entry);
  const next = entry.objects.find((item) => !rating.things[item.index]);
  const verdict = event.key === "k" ? "keep" : event.key === "r" ? "remove" : null;
  if (verdict && next) VERDICTS.put(entry, { things: { ...rating.things, [next.index]: verdict } });
  else if (event.key in GRADES && visible(entry).after) VERDICTS.put(entry, { grade: Number(event.key) });
  else return false;
  progress();
  return true;
}

function save() {
  const name = byId("rater");
  if (!VERDICTS.rater.trim()) {
    announce("Please write your name first.");
    name.setAttribute("aria-invalid", "true");
    name.focus();
    return;
  }
  const url = URL.createObjectURL(new Blob([VERDICTS.csv()], { type: "text/csv;charset=utf-8" }));
  const link = el("a", { href: url, download: "verdicts.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce("Saved as verdicts.csv.");
}

/** A button that forgets all ratings, for another rater at the same browser; pressed twice, as there is no way back. */
function startOver() {
  const calm = "Start over";
  const button = el("button", { type: "button", class: "again", blur: () => (button.textContent = calm) }, calm);
  button.addEventListener("click", () => {
    if (button.textContent === calm) {
      button.textContent = "Forget all ratings";
      return;
    }
    VERDICTS.forget();
    location.reload();
  });
  return button;
}

function main() {
  const rater = el("input", {
    id: "rater",
    value: VERDICTS.rater,
    maxlength: 80,
    autocomplete: "name",
    required: true,
  });
  rater.addEventListener("input", () => {
    VERDICTS.rater = rater.value;
    VERDICTS.keep();
    rater.removeAttribute("aria-invalid");
  });
  const gallery = new Gallery({
    filters: DATA.blind ? ["text", "label", "todo"] : ["text", "label", "reason", "least", "most", "todo"],
    aside: reviewAside,
    visible,
    isDone: (entry) => VERDICTS.done(entry),
    badge: (entry) => VERDICTS.done(entry) && el("span", { class: "chip" }, "✓ done"),
    key: reviewKey,
  });
  byId("head").append(pageHead("review", DATA.about));
  byId("main")
    .append(
      el(
        "div",
        { class: "rater" },
        el("div", { class: "field" }, el("label", { for: "rater" }, "Your name"), rater),
        el("div", {}, doneText, el("div", {}, bar)),
        el("button", { type: "button", class: "save", click: save }, "Save verdicts.csv"),
        startOver(),
      ),
      el(
        "p",
        { class: "note" },
        "Judge of each thing whether it should stay or go, then grade the result. This browser keeps your ratings ",
        "until you save them; nothing is sent anywhere.",
      ),
      gallery.node,
      keys({ "n → / p ←": "next, previous", k: "keep the next thing", r: "remove it", "1–5": "grade", Esc: "close" }),
    );
  progress();
  gallery.openNamed();
}

main();
