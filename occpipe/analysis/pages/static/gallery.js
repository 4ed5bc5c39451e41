/** @import { Child, Entry, Overlays, Parts } from "./types" */

import { announce, DATA, el, isTyping, nameOf, plural, REMOVE, svg, whole } from "./dom.js";
import { Filters } from "./filters.js";
import { highlight, picture, spread } from "./picture.js";

/**
 * The pictures of a page as a grid, and one of them at a time in a dialog. `parts` is what a page makes of an entry.
 */
export class Gallery {
  /** @param {Parts} parts */
  constructor(parts) {
    /** @type {Required<Parts>} */
    this.parts = { badge: () => null, isDone: () => false, visible: (entry) => entry, key: () => false, ...parts };
    /** @type {Overlays} */
    this.overlays = { filled: true, outlines: true, names: true };
    this.filters = new Filters(parts.filters, () => this.draw());
    this.grid = el("ul", { class: "grid" });
    this.count = el("p", { class: "count", role: "status" });
    this.dialog = el("dialog", { class: "viewer", "aria-label": "Picture", close: () => this.onClose() });
    this.node = el(
      "section",
      { id: "gallery", class: "gallery", tabindex: -1, "aria-label": "Pictures" },
      this.filters.node,
      this.count,
      this.grid,
      this.dialog,
    );
    document.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener(
      "resize",
      () => this.dialog.open && spread(every(this.dialog, ".overlay .name")),
    );
    /** @type {Entry[]} */
    this.list = [];
    this.at = DATA.entries[0];
    this.frame = el("div");
    this.draw();
  }

  /** Draw the grid anew: what passes the filters. */
  draw() {
    this.list = DATA.entries.filter((entry) => this.filters.passes(entry, this.parts.isDone));
    this.grid.replaceChildren(...this.list.map((entry) => el("li", {}, this.thumb(entry))));
    this.count.textContent = `${whole(this.list.length)} of ${plural(DATA.entries.length, "picture")} shown`;
    if (!this.list.length) this.grid.append(el("li", { class: "none" }, "Nothing here passes the filters."));
  }

  /** @param {Entry} entry */
  thumb(entry) {
    const visible = this.parts.visible(entry);
    const gone = visible.objects.filter((item) => item.verdict === REMOVE);
    return el(
      "button",
      { type: "button", class: `thumb ${visible.status ?? ""}`, "data-id": entry.id, click: () => this.open(entry) },
      el("span", { class: "frame" }, thumbPicture(visible)),
      el("span", { class: "file" }, nameOf(entry.uri).file || entry.uri),
      el(
        "span",
        { class: "chips" },
        visible.status && el("span", { class: `status ${visible.status}` }, visible.status),
        [...new Set(gone.map((item) => item.label))].slice(0, 3).map((label) => el("span", { class: "chip" }, label)),
        visible.reason && el("span", { class: "chip" }, visible.reason),
        this.parts.badge(entry),
      ),
    );
  }

  /** @param {Entry} entry */
  open(entry) {
    this.at = entry;
    this.fill();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTo(0, 0);
    every(this.dialog, ".step.next")[0].focus({ preventScroll: true });
    history.replaceState(null, "", `#${entry.id}`);
  }

  /** Draw the open entry anew; the focus stays on what has the same id. */
  fill() {
    const focused = document.activeElement?.id;
    const entry = this.parts.visible(this.at);
    this.frame = picture(entry, this.overlays);
    const { folder, file } = nameOf(entry.uri);
    const place = this.list.indexOf(this.at);
    const step = (/** @type {number} */ by, /** @type {string} */ name, /** @type {string} */ sign) =>
      el(
        "button",
        { type: "button", class: `step ${name}`, "aria-label": `${name} picture`, click: () => this.step(by) },
        sign,
      );
    this.dialog.replaceChildren(
      el(
        "header",
        {},
        step(-1, "previous", "‹"),
        step(1, "next", "›"),
        el("h2", { title: entry.uri }, file || entry.uri, el("small", {}, folder)),
        el("span", { class: "place" }, place < 0 ? "" : `${place + 1} / ${this.list.length}`),
        el("button", { type: "button", class: "close", "aria-label": "Close", click: () => this.dialog.close() }, "×"),
      ),
      el("div", { class: "stage" }, this.frame, entry.before && this.toggles(entry)),
      el(
        "div",
        { class: "aside", tabindex: 0, role: "region", "aria-label": "Why" },
        this.parts.aside(
          entry,
          (i) => this.pick(i),
          () => this.redraw(),
        ),
      ),
    );
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  redraw() {
    this.fill();
    const old = every(this.grid, ".thumb").find((node) => node.dataset.id === this.at.id);
    old?.replaceWith(this.thumb(this.at));
  }

  /** @param {Entry} entry */
  toggles(entry) {
    const filled = entry.after ? "filled area" : "area to fill";
    const names = { filled, outlines: "outlines", names: "names" };
    const usable = /** @type {(keyof Overlays)[]} */ (Object.keys(names)).filter((key) =>
      key === "filled" ? entry.mask : entry.objects.length,
    );
    return el(
      "div",
      { class: "toggles", role: "group", "aria-label": "Overlays" },
      usable.map((key) => {
        const box = el("input", {
          type: "checkbox",
          id: `overlay-${key}`,
          change: () => this.toggle(key, box.checked),
        });
        box.checked = this.overlays[key];
        return el("label", { for: box.id }, box, names[key]);
      }),
    );
  }

  /** @returns {HTMLInputElement | null} */
  get slider() {
    return this.frame.querySelector("input[type=range]");
  }

  /**
   * @param {keyof Overlays} key
   * @param {boolean} on
   */
  toggle(key, on) {
    const at = this.slider?.value;
    this.overlays[key] = on;
    this.fill();
    const range = this.slider;
    if (range && at != null) {
      range.value = at;
      range.dispatchEvent(new Event("input"));
    }
  }

  /** @param {number | null} index */
  pick(index) {
    highlight(this.frame, index);
    for (const card of every(this.dialog, ".aside [data-index]")) {
      const button = card.querySelector("button.pick");
      button?.setAttribute("aria-pressed", String(card.dataset.index === String(index)));
    }
  }

  /** @param {number} by */
  step(by) {
    const place = this.list.indexOf(this.at) + by;
    if (place >= 0 && place < this.list.length) this.open(this.list[place]);
    else announce(by > 0 ? "This is the last picture." : "This is the first picture.");
  }

  onClose() {
    history.replaceState(null, "", location.pathname + location.search);
    every(this.grid, ".thumb").find((node) => node.dataset.id === this.at.id)?.focus();
  }

  /** The picture that the address of the page names. */
  openNamed() {
    const entry = DATA.entries.find((one) => `#${one.id}` === location.hash);
    if (entry) this.open(entry);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (isTyping(event)) return;
    if (!this.dialog.open) {
      if (event.key !== "/") return;
      this.filters.fields.text?.focus();
    } else if (this.parts.key(event, this.at)) {
      this.redraw();
    } else {
      /** @type {Record<string, number>} */
      const steps = { ArrowRight: 1, n: 1, ArrowLeft: -1, p: -1 };
      /** @type {Record<string, keyof Overlays>} */
      const keys = { f: "filled", o: "outlines", l: "names" };
      if (event.key in steps) this.step(steps[event.key]);
      else if (event.key in keys) this.toggle(keys[event.key], !this.overlays[keys[event.key]]);
      else return;
    }
    event.preventDefault();
  }
}

/**
 * The elements below a node that a selector matches.
 * @param {HTMLElement} node
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
function every(node, selector) {
  return [...node.querySelectorAll(selector)].filter((part) => part instanceof HTMLElement);
}

/**
 * A small picture for the grid: the photo with what was filled, and the result under the pointer.
 * @param {Entry} entry
 * @returns {Child}
 */
function thumbPicture(entry) {
  if (!entry.before || !entry.view) return el("span", { class: "nothing" }, entry.error ?? entry.note ?? "no picture");
  const [width, height] = entry.view;
  const shape = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" };
  return [
    el("img", { src: entry.before, alt: "", loading: "lazy" }),
    entry.mask && svg("svg", shape, svg("path", { class: "filled", d: entry.mask })),
    entry.after && el("img", { class: "after", src: entry.after, alt: "", loading: "lazy" }),
  ];
}
