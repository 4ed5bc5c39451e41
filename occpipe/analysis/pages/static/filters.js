/** @import { Entry, Thing } from "./types" */

import { DATA, el } from "./dom.js";

/** What a gallery shows: fields above it, and whether an entry passes them. `change` is called after each change. */
export class Filters {
  /**
   * @param {string[]} names
   * @param {() => void} change
   */
  constructor(names, change) {
    this.change = change;
    /** @type {Record<string, HTMLInputElement | HTMLSelectElement>} */
    this.fields = {};
    const all = DATA.entries.flatMap((entry) => entry.objects);
    /** @type {Record<string, () => HTMLInputElement | HTMLSelectElement>} */
    const kinds = {
      text: () => el("input", { type: "search", placeholder: "name, class, message …", maxlength: 200 }),
      status: () => this.choice(DATA.entries.map((entry) => entry.status)),
      label: () => this.choice(all.map((item) => item.label)),
      reason: () => this.choice([...all, ...DATA.entries].map((item) => item.reason)),
      least: () => el("input", { type: "number", min: 0, max: 1, step: 0.01, placeholder: "0" }),
      most: () => el("input", { type: "number", min: 0, max: 1, step: 0.01, placeholder: "1" }),
      todo: () => this.choice(["to do", "done"]),
    };
    /** @type {Record<string, string>} */
    const heads = { text: "Search", label: "Class", least: "Relation from", most: "to", todo: "Progress" };
    this.node = el("form", {
      class: "filters",
      role: "search",
      "aria-label": "Filter",
      submit: (/** @type {Event} */ e) => e.preventDefault(),
    });
    for (const name of names) {
      const field = kinds[name]();
      field.id = `filter-${name}`;
      field.addEventListener("input", () => change());
      this.fields[name] = field;
      const head = heads[name] ?? name[0].toUpperCase() + name.slice(1);
      this.node.append(el("div", { class: `field for-${name}` }, el("label", { for: field.id }, head), field));
    }
    this.node.append(el("button", { type: "reset", click: () => setTimeout(change) }, "Clear"));
  }

  /** @param {(string | null)[]} values */
  choice(values) {
    const options = [...new Set(values.filter((value) => value != null))].sort();
    return el(
      "select",
      {},
      el("option", { value: "" }, "all"),
      options.map((v) => el("option", { value: v }, v)),
    );
  }

  /**
   * Show what has this value in one field, and nothing else. A value that no entry has shows an empty gallery.
   * @param {string} name
   * @param {string} value
   */
  only(name, value) {
    const field = /** @type {HTMLSelectElement} */ (this.fields[name]);
    this.node.reset();
    if (![...field.options].some((option) => option.value === value)) field.append(el("option", { value }, value));
    field.value = value;
    this.change();
  }

  /** @param {string} name */
  value(name) {
    return this.fields[name]?.value ?? "";
  }

  /**
   * @param {Entry} entry
   * @param {(entry: Entry) => boolean} isDone
   */
  passes(entry, isDone) {
    const [status, todo, reason] = [this.value("status"), this.value("todo"), this.value("reason")];
    if (status && entry.status !== status) return false;
    if (todo && isDone(entry) !== (todo === "done")) return false;
    const things = this.things();
    const ofThings = reason && entry.reason === reason ? "" : reason;
    if ((this.value("label") || ofThings || this.bounded()) && !entry.objects.some((item) => things(item, ofThings))) {
      return false;
    }
    const words = this.value("text").toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const labels = [...entry.objects.map((item) => item.label), ...entry.stuff.map(([label]) => label)];
    const text = [entry.uri, entry.error, entry.reason, entry.status, ...entry.shows, ...labels]
      .join("\n")
      .toLowerCase();
    return words.every((word) => text.includes(word));
  }

  bounded() {
    return this.value("least") !== "" || this.value("most") !== "";
  }

  /** Whether one thing has the class, the reason and a relation within the bounds, all at once. */
  things() {
    const label = this.value("label");
    const [least, most] = [Number(this.value("least") || 0), Number(this.value("most") || 1)];
    return (/** @type {Thing} */ item, /** @type {string} */ reason) =>
      (!label || item.label === label) &&
      (!reason || item.reason === reason) &&
      (!this.bounded() || (item.relation != null && item.relation >= least && item.relation <= most));
  }
}
