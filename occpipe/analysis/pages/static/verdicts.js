/** What a rater said of a page: kept by the browser as it is said, and written as CSV. */
class Verdicts {
  constructor() {
    // who has seen verdicts rates blind no more
    this.key = `occpipe-review-${DATA.id}-${DATA.blind ? "blind" : "open"}`;
    const kept = KEPT.read(this.key);
    this.rater = typeof kept?.rater === "string" ? kept.rater : "";
    this.said = new Map(Object.entries(kept?.said ?? {}));
  }

  /** What was said of an entry: {things: {index: verdict}, grade, seen}; `seen` once its result was looked at. */
  of(entry) {
    return this.said.get(entry.id) ?? { things: {}, grade: null, seen: false };
  }

  put(entry, change) {
    this.said.set(entry.id, { ...this.of(entry), ...change });
    this.keep();
  }

  keep() {
    KEPT.write(this.key, { rater: this.rater, said: Object.fromEntries(this.said) });
  }

  forget() {
    this.said.clear();
    this.rater = "";
    this.keep();
  }

  /** Whether each thing has a verdict. */
  judged(entry) {
    const { things } = this.of(entry);
    return entry.objects.every((item) => things[item.index]);
  }

  /**
   * Whether there is nothing left to say. Where the page is blind the result must have been looked at, too: to be done
   * without a grade would tell that nothing was changed.
   */
  done(entry) {
    const { seen, grade } = this.of(entry);
    return this.judged(entry) && (seen || !DATA.blind) && (!entry.after || grade != null);
  }

  /** Lines of a CSV (RFC 4180): a line for each verdict, and one for each grade, which has no object. */
  csv() {
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

/** The uri of an image, by which verdicts are matched; its id, which matches as well, where that is cut or a risk. */
function imageName(entry) {
  return entry.cut || RISKY.test(entry.uri) ? entry.id : entry.uri;
}

/** A name that nothing is matched by: an apostrophe keeps spreadsheets from calculating it. */
function harmless(text) {
  return RISKY.test(text) ? `'${text.replace(/[\u0000-\u001f\u007f-\u009f]/gu, " ")}` : text;
}

function quoted(value) {
  return `"${String(value).replaceAll('"', '""')}"`;
}
