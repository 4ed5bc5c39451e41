"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const SCANNED = "scanned";
const REMOVE = "remove";

/** What the reasons of the Parquet mean, in words. */
const REASONS = {
  unrelated: "does not belong here",
  related: "belongs here",
  too_small: "too small to be removed",
  too_large: "too large to be removed",
  kept_by_policy: "kept by policy",
  removed_by_policy: "removed by policy",
  kept_by_review: "kept by a person's verdict",
  removed_by_review: "removed by a person's verdict",
  low_confidence: "seen too unsurely",
  no_context: "too little around it to tell",
};

/**
 * An element. Functions among the attributes are listeners, `vars` are custom properties of its style.
 * Children that are strings become text nodes, whatever is in them.
 */
function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** An element of SVG, in the same way. */
function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "vars") Object.entries(value).forEach(([key, v]) => node.style.setProperty(key, v));
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

const whole = (n) => n.toLocaleString("en");
const score = (x) => (x == null ? "–" : x.toFixed(2));
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

/** A share in percent, with a decimal where it is small. */
function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1%";
  return `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)}%`;
}

/** The last part of a name, and the folder before it. */
function nameOf(uri) {
  const at = uri.lastIndexOf("/") + 1;
  return { folder: uri.slice(0, at), file: uri.slice(at) };
}

/** Have a screen reader say something. */
function say(text) {
  document.getElementById("said").textContent = text;
}

/** What the browser kept for this page; nothing where it keeps nothing (private windows). */
const KEPT = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      say("This browser keeps nothing: save before you close the page.");
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
  const show = (name) => {
    document.documentElement.style.colorScheme = name === "auto" ? "light dark" : name;
    KEPT.write(key, name);
  };
  select.value = ["light", "dark"].includes(KEPT.read(key)) ? KEPT.read(key) : "auto";
  show(select.value);
  return select;
}

/** Whether a key press is meant for the field that has the focus: text for all, arrows and the like for the others. */
function isTyping(event) {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (at.matches("input[type=radio], input[type=checkbox], input[type=range]"))
    return event.key.length > 1 || event.key === " ";
  return at.matches("select, textarea, input");
}

/** The top of a page: what it is of, in a line. */
function pageHead(what, about) {
  return el(
    "div",
    { class: "top" },
    el("div", {}, el("h1", {}, DATA.title), el("p", { class: "about" }, `occpipe ${what} · ${about.join(" · ")}`)),
    themeSwitch(),
  );
}

function keys(list) {
  return el(
    "footer",
    { class: "keys" },
    Object.entries(list).map(([key, what]) => el("span", {}, el("kbd", {}, key), ` ${what}`)),
  );
}
