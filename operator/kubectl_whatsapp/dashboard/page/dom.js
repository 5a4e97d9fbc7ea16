// Makes and fills elements. Texts from the cluster become text nodes only, never markup.

const SVG = "http://www.w3.org/2000/svg";

// Return an element with attributes and children; null and "" among the children are left out.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// Set a text only if it differs, so that a screen reader does not read it again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Give an element these elements as its children. Those that are the same stay: a person may have selected their text.
export function replace(parent, children) {
  children.forEach((child, at) => {
    const old = parent.childNodes[at];
    if (!old) parent.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

// Show lines as the entries of a list; an empty list is hidden.
export function list(element, entries) {
  replace(element, entries.map((entry) => (entry.tagName === "LI" ? entry : make("li", {}, entry))));
  element.hidden = entries.length === 0;
}

// Return a duration in the largest unit of which there are two, as the command prints it.
export function span(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "m"]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)}${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))}s`;
}

// Let the arrow keys, Home and End move the focus within a group, of which only one element is reached by Tab. Returns what must be called
// after the group has changed. The group must be HTML: Chromium lets Tab reach every SVG element that listens to the focus.
export function roving(group, selector) {
  const members = () => [...group.querySelectorAll(selector)].filter((one) => !one.closest("[hidden]"));
  group.addEventListener("keydown", (event) => {
    const all = members();
    const at = all.indexOf(event.target);
    const last = all.length - 1;
    const to = {ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last}[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    all[Math.min(Math.max(to, 0), last)].focus();
  });
  group.addEventListener("focusin", (event) => event.target.matches(selector) && reach(members(), event.target));
  return () => {
    const all = members();
    if (!all.some((one) => one.getAttribute("tabindex") === "0")) reach(all, all[0]);
  };
}

function reach(members, target) {
  for (const one of members) one.setAttribute("tabindex", one === target ? "0" : "-1");
}
