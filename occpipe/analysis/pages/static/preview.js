/** @import { Pick } from "./types" */

import { byId, DATA, el, pageHead, score } from "./dom.js";
import { highlight, picture } from "./picture.js";
import { whyCard } from "./why.js";

/** One photo with its result, and why each thing stayed or went. */
function main() {
  const entry = DATA.entries[0];
  const frame = picture(entry, { filled: true, outlines: true, names: true });
  /** @type {Pick} */
  const pick = (index) => {
    highlight(frame, index);
    for (const button of document.querySelectorAll("button.pick")) {
      const card = /** @type {HTMLElement} */ (button.closest("[data-index]"));
      button.setAttribute("aria-pressed", String(card.dataset.index === String(index)));
    }
  };
  byId("head").append(pageHead("preview", DATA.about));
  byId("main").append(
    el(
      "div",
      { class: "one", id: "gallery" },
      el("div", { class: "stage" }, frame),
      el(
        "div",
        { class: "aside" },
        el("h2", { class: "unseen" }, "Things"),
        entry.objects.map((_, place) => whyCard(entry, place, pick)),
        !entry.objects.length && el("p", {}, "No thing was seen in this photo."),
        el(
          "p",
          { class: "stuff" },
          "Stuff: ",
          entry.stuff.map(([label, sure]) => `${label} ${score(sure)}`).join(", ") || "none",
        ),
      ),
    ),
  );
}

main();
