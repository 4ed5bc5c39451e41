/** @import { Attributes, Child, PageData } from "./types" */

/** @type {PageData} */
export const DATA = JSON.parse(byId("data").textContent ?? "");
export const SCANNED = "scanned";
export const REMOVE = "remove";

/**
 * The element of the page with this id.
 * @param {string} id
 */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * An element. Functions among the attributes are listeners, `vars` are custom properties of its style.
 * Children that are strings become text nodes, whatever is in them.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
export function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/**
 * An element of SVG, in the same way.
 * @param {"svg" | "rect" | "path" | "line"} tag
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * @template {HTMLElement | SVGElement} T
 * @param {T} node
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, /** @type {EventListener} */ (value));
    else if (name === "vars") {
      for (const [key, v] of Object.entries(attributes.vars ?? {})) node.style.setProperty(key, String(v));
    } else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...flat(children));
  return node;
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function flat(children) {
  return children.flatMap((child) => (Array.isArray(child) ? flat(child) : child || []));
}

export const whole = (/** @type {number} */ n) => n.toLocaleString("en");
export const score = (/** @type {number | null} */ x) => (x == null ? "–" : x.toFixed(2));
export const signed = (/** @type {number} */ x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
export const plural = (/** @type {number} */ n, /** @type {string} */ word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

/**
 * A share in percent, with a decimal where it is small.
 * @param {number} share
 */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1%";
  return `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)}%`;
}

/**
 * The last part of a name, and the folder before it.
 * @param {string} uri
 */
export function nameOf(uri) {
  const at = uri.lastIndexOf("/") + 1;
  return { folder: uri.slice(0, at), file: uri.slice(at) };
}

/**
 * Have screen readers read a text.
 * @param {string} text
 */
export function announce(text) {
  byId("announcement").textContent = text;
}

/** What the browser keeps for this page: nothing in a private window. */
export const STORAGE = {
  /** @param {string} key */
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key) ?? "null");
    } catch {
      return null;
    }
  },
  /**
   * @param {string} key
   * @param {unknown} value
   */
  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      announce("This browser keeps nothing: save before you close the page.");
    }
  },
};

/** The switch between the system's colours, light and dark. */
function themeSwitch() {
  const key = "occpipe-theme";
  const select = el(
    "select",
    { "aria-label": "Colours", change: () => show(select.value) },
    ["auto", "light", "dark"].map((name) => el("option", { value: name }, name)),
  );
  const show = (/** @type {string} */ name) => {
    document.documentElement.style.colorScheme = name === "auto" ? "light dark" : name;
    STORAGE.write(key, name);
  };
  select.value = ["light", "dark"].includes(STORAGE.read(key)) ? STORAGE.read(key) : "auto";
  show(select.value);
  return select;
}

/**
 * Whether a key press is meant for the field that has the focus: text for all, arrows and the like for the others.
 * @param {KeyboardEvent} event
 */
export function isTyping(event) {
  const at = /** @type {Element} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (at.matches("input[type=radio], input[type=checkbox], input[type=range]"))
    return event.key.length > 1 || event.key === " ";
  return at.matches("select, textarea, input");
}

/**
 * The top of a page: its title, and its models in a line.
 * @param {string} what
 * @param {string[]} about
 */
export function pageHead(what, about) {
  return el(
    "div",
    { class: "top" },
    el("div", {}, el("h1", {}, DATA.title), el("p", { class: "about" }, `occpipe ${what} · ${about.join(" · ")}`)),
    themeSwitch(),
  );
}

/**
 * The keys of a page and what they do.
 * @param {Record<string, string>} list
 */
export function keys(list) {
  return el(
    "footer",
    { class: "keys" },
    Object.entries(list).map(([key, what]) => el("span", {}, el("kbd", {}, key), ` ${what}`)),
  );
}
