/** @import { Entry, Overlays, Thing } from "./types" */

import { el, svg } from "./dom.js";

/**
 * A photo and its result in one frame, parted by a slider; over the photo's side what was filled, and the outlines and
 * names of the things. `overlays` are those of these that are drawn.
 * @param {Entry} entry
 * @param {Overlays} overlays
 */
export function picture(entry, overlays) {
  if (!entry.before || !entry.view)
    return el("div", { class: "picture empty" }, el("p", {}, entry.note ?? entry.error ?? entry.status));
  const [width, height] = entry.view;
  const frame = el("div", { class: "picture", vars: { "--at": entry.after ? 0.5 : 1, "--ratio": width / height } });
  frame.append(el("img", { src: entry.before, alt: `before: ${entry.uri}`, draggable: "false" }));
  if (entry.after) frame.append(el("img", { class: "after", src: entry.after, alt: "after", draggable: "false" }));
  const shapes = [
    overlays.filled && entry.mask && svg("path", { class: "filled", d: entry.mask }),
    overlays.outlines &&
      entry.objects.map((item) =>
        svg("path", {
          class: `outline ${item.verdict ?? ""}`,
          d: item.outline,
          "data-index": item.index,
          stroke: item.colour,
        }),
      ),
  ];
  const names = overlays.names ? entry.objects.flatMap((item) => (item.box ? nameTag(item, item.box) : [])) : [];
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
    shapes,
  );
  frame.append(el("div", { class: "overlay", "aria-hidden": "true" }, drawing, names));
  requestAnimationFrame(() => spread(names));
  if (entry.after) frame.append(el("span", { class: "handle", "aria-hidden": "true" }), slider(frame));
  return frame;
}

/** @param {HTMLElement} frame */
function slider(frame) {
  const range = el("input", { type: "range", min: 0, max: 100, value: 50, step: 1, "aria-label": "Before and after" });
  const move = () => {
    frame.style.setProperty("--at", String(range.valueAsNumber / 100));
    range.setAttribute("aria-valuetext", `${range.value}% before, ${100 - range.valueAsNumber}% after`);
  };
  range.addEventListener("input", move);
  move();
  return el(
    "div",
    { class: "slider" },
    range,
    el("span", { class: "tag" }, "before"),
    el("span", { class: "tag" }, "after"),
  );
}

/**
 * @param {Thing} item
 * @param {[number, number]} corner
 */
function nameTag(item, [x, y]) {
  return el(
    "span",
    {
      class: `name ${item.verdict ?? ""}`,
      "data-index": item.index,
      vars: { "--x": x, "--y": y, "--colour": item.colour },
    },
    item.label,
  );
}

/**
 * Move names that would lie on each other down, and names at the edges of the frame back into it.
 * @param {HTMLElement[]} names
 */
export function spread(names) {
  /** @type {{ left: number, top: number, right: number, bottom: number }[]} */
  const boxes = [];
  for (const name of names) {
    const frame = /** @type {HTMLElement} */ (name.parentElement).getBoundingClientRect();
    const box = name.getBoundingClientRect();
    let [left, top] = [box.left - frame.left, box.top - frame.top];
    left = Math.max(2, Math.min(left, frame.width - box.width - 2));
    top = Math.max(2, Math.min(top, frame.height - box.height - 2));
    const hit = () =>
      boxes.find((p) => left < p.right && left + box.width > p.left && top < p.bottom && top + box.height > p.top);
    for (let other = hit(); other && top + box.height < frame.height; other = hit()) top = other.bottom + 1;
    boxes.push({ left, top, right: left + box.width, bottom: top + box.height });
    name.style.left = `${left}px`;
    name.style.top = `${top}px`;
  }
}

/**
 * Have one thing of a picture stand out, or none.
 * @param {HTMLElement} frame
 * @param {number | null} index
 */
export function highlight(frame, index) {
  frame.classList.toggle("picking", index != null);
  for (const part of /** @type {NodeListOf<HTMLElement>} */ (frame.querySelectorAll("[data-index]"))) {
    part.classList.toggle("picked", part.dataset.index === String(index));
  }
}
