/** @import { Entry, Rating } from "./types" */

import { DATA, STORAGE } from "./dom.js";

/** The verdicts and grades of a rater: the browser keeps each at once, and they are written as CSV. */
export class Verdicts {
  constructor() {
    // separate, because a rater who has seen the verdicts is no longer blind
    this.key = `occpipe-review-${DATA.id}-${DATA.blind ? "blind" : "open"}`;
    const stored = STORAGE.read(this.key);
    /** @type {string} */
    this.rater = typeof stored?.rater === "string" ? stored.rater : "";
    /** @type {Map<string, Rating>} */
    this.ratings = new Map(Object.entries(stored?.ratings ?? {}));
  }

  /**
   * The rating of an entry.
   * @param {Entry} entry
   * @returns {Rating}
   */
  of(entry) {
    return this.ratings.get(entry.id) ?? { things: {}, grade: null, seen: false };
  }

  /**
   * @param {Entry} entry
   * @param {Partial<Rating>} change
   */
  put(entry, change) {
    this.ratings.set(entry.id, { ...this.of(entry), ...change });
    this.keep();
  }

  keep() {
    STORAGE.write(this.key, { rater: this.rater, ratings: Object.fromEntries(this.ratings) });
  }

  forget() {
    this.ratings.clear();
    this.rater = "";
    this.keep();
  }

  /**
   * Whether each thing has a verdict.
   * @param {Entry} entry
   */
  judged(entry) {
    const { things } = this.of(entry);
    return entry.objects.every((item) => things[item.index]);
  }

  /**
   * Whether there is nothing left to rate. On a blind page the rater must have looked at the result, too: an entry that
   * is done without a grade would show that nothing was changed.
   * @param {Entry} entry
   */
  done(entry) {
    const { seen, grade } = this.of(entry);
    return this.judged(entry) && (seen || !DATA.blind) && (!entry.after || grade != null);
  }

  /** Lines of a CSV (RFC 4180): a line for each verdict, and one for each grade, which has no object. */
  csv() {
    /** @type {(string | number)[][]} */
    const lines = [["image", "object", "verdict", "grade", "rater"]];
    const rater = harmless(this.rater.trim());
    for (const entry of DATA.entries) {
      const { things, grade } = this.of(entry);
      const image = imageName(entry);
      for (const item of entry.objects) {
        if (things[item.index]) lines.push([image, item.index, things[item.index], "", rater]);
      }
      if (grade != null) lines.push([image, "", "", grade, rater]);
    }
    return lines.map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
  }
}

/** Begins like a formula, or holds what spreadsheets and readers change: white space at an end, control characters. */
const RISKY = /^[=+\-@|%]|^\s|\s$|[\u0000-\u001f\u007f-\u009f]/u;

/**
 * The uri of an image, by which verdicts are matched; its id, which matches as well, where that is cut or a risk.
 * @param {Entry} entry
 */
function imageName(entry) {
  return entry.cut || RISKY.test(entry.uri) ? entry.id : entry.uri;
}

/**
 * A name that nothing is matched by: an apostrophe keeps spreadsheets from calculating it.
 * @param {string} text
 */
export function harmless(text) {
  return RISKY.test(text) ? `'${text.replace(/[\u0000-\u001f\u007f-\u009f]/gu, " ")}` : text;
}

/** @param {unknown} value */
export function quoted(value) {
  return `"${String(value).replaceAll('"', '""')}"`;
}
