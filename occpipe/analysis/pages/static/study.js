/** @import { StudyData, StudyEntry } from "./types" */

import { announce, byId, DATA, el, pageHead, plural, STORAGE } from "./dom.js";
import { harmless, quoted } from "./verdicts.js";

/**
 * The paired study: pictures without names, two questions each. Answers are kept by the browser and saved as CSV.
 * @type {StudyEntry[]}
 */
const PHOTOS = /** @type {StudyData} */ (/** @type {unknown} */ (DATA)).entries;
/** @type {Record<string, string>} */
const QUESTIONS = { natural: "Does it look natural?", missing: "Is something missing in it?" };
const KEY = `occpipe-study-${DATA.id}`;
/** @type {{ rater: string, answers: Record<string, string> }} */
const SAID = { rater: "", answers: {}, ...STORAGE.read(KEY) };

const doneText = el("span", { class: "count" });
const bar = el("progress", { max: Math.max(1, PHOTOS.length), "aria-label": "Done" });

/**
 * @param {number} number
 * @param {number} place
 * @param {string} question
 */
function nameOfAnswer(number, place, question) {
  return `${number}-${place}-${question}`;
}

/**
 * @param {StudyEntry} entry
 * @param {number} number
 */
function isDone(entry, number) {
  return entry.pictures.every((_, place) =>
    Object.keys(QUESTIONS).every((question) => SAID.answers[nameOfAnswer(number, place, question)]),
  );
}

function progress() {
  const done = PHOTOS.filter(isDone).length;
  bar.value = done;
  doneText.textContent = `${done} of ${plural(PHOTOS.length, "photo")} done`;
}

/**
 * @param {number} number
 * @param {number} place
 * @param {string} key
 */
function question(number, place, key) {
  const name = nameOfAnswer(number, place, key);
  return el(
    "fieldset",
    { class: "choices" },
    el("legend", {}, QUESTIONS[key]),
    ["yes", "no"].map((answer) => {
      const put = () => {
        SAID.answers[name] = answer;
        STORAGE.write(KEY, SAID);
        progress();
      };
      const radio = el("input", { type: "radio", name, id: `${name}-${answer}`, value: answer, change: put });
      radio.checked = SAID.answers[name] === answer;
      return el("label", { for: radio.id }, radio, answer);
    }),
  );
}

/**
 * @param {StudyEntry} entry
 * @param {number} number
 */
function photo(entry, number) {
  return el(
    "section",
    { class: "pairs", "aria-label": `Photo ${number + 1}` },
    el("h2", {}, `Photo ${number + 1}`),
    el(
      "div",
      { class: "row" },
      entry.pictures.map((picture, place) =>
        el(
          "figure",
          {},
          el("img", { src: picture.src, alt: `Picture ${place + 1} of photo ${number + 1}` }),
          Object.keys(QUESTIONS).map((key) => question(number, place, key)),
        ),
      ),
    ),
  );
}

/** Lines of a CSV: one for each run that a judged picture shows. */
function csv() {
  const lines = [["image", "run", "natural", "missing", "rater"]];
  PHOTOS.forEach((entry, number) => {
    entry.pictures.forEach((picture, place) => {
      const said = Object.keys(QUESTIONS).map((key) => SAID.answers[nameOfAnswer(number, place, key)] ?? "");
      if (!said.some(Boolean)) return;
      for (const run of picture.runs) lines.push([harmless(entry.image), run, ...said, harmless(SAID.rater.trim())]);
    });
  });
  return lines.map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
}

function save() {
  const name = byId("rater");
  if (!SAID.rater.trim()) {
    announce("Please write your name first.");
    name.setAttribute("aria-invalid", "true");
    name.focus();
    return;
  }
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
  const link = el("a", { href: url, download: "answers.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce("Saved as answers.csv.");
}

function main() {
  const rater = el("input", { id: "rater", value: SAID.rater, maxlength: 80, autocomplete: "name", required: true });
  rater.addEventListener("input", () => {
    SAID.rater = rater.value;
    STORAGE.write(KEY, SAID);
    rater.removeAttribute("aria-invalid");
  });
  byId("head").append(pageHead("study", [plural(PHOTOS.length, "photo")]));
  byId("main").append(
    el(
      "div",
      { class: "rater" },
      el("div", { class: "field" }, el("label", { for: "rater" }, "Your name"), rater),
      el("div", {}, doneText, el("div", {}, bar)),
      el("button", { type: "button", class: "save", click: save }, "Save answers.csv"),
    ),
    el("p", { class: "note" }, "Each photo is shown as it was taken and as programs changed it, in any order."),
    el("div", { id: "gallery" }, PHOTOS.map(photo)),
  );
  progress();
}

main();
