// Draws shards on Coreapps on nodes. Each shard and each Coreapp is one element as long as it exists, so a shard that moves is seen to move.

import {make, roving, svg} from "./dom.js";

const POD = {width: 118, height: 48};
const GAP = 8;
const PADDING = 10;
const TITLE = 24;
const RADIUS = 15;
const NO_NODE = "";
const SIGNS = {true: "✓", false: "✕", undefined: "?"};
const SERVED = {true: "served", false: "not served", undefined: "not known whether served"};

export class Picture {
  // `select` is called with the number of a shard, or null.
  constructor(parent, select) {
    this.parent = parent;
    this.select = select;
    this.nodes = svg("g", {class: "nodes", "aria-hidden": "true"});
    this.pods = svg("g", {class: "pods", "aria-hidden": "true"});
    this.shards = svg("g", {class: "shards", role: "toolbar", "aria-label": "Shards"});
    this.root = svg("svg", {role: "group", "aria-label": "Shards on Coreapps on nodes"}, this.nodes, this.pods, this.shards);
    this.reach = roving(parent, ".shard");
    this.shards.addEventListener("click", (event) => this.choose(event.target.closest(".shard")));
    this.shards.addEventListener("keydown", (event) => this.press(event));
    parent.append(this.root);
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  show(status, selected) {
    this.status = status;
    this.selected = selected;
    this.draw();
  }

  choose(shard) {
    if (!shard) return;
    const number = Number(shard.dataset.key);
    this.select(number === this.selected ? null : number);
  }

  press(event) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(event.target.closest(".shard"));
    }
    if (event.key === "Escape") this.select(null);
  }

  draw() {
    if (!this.status) return;
    const width = Math.max(this.parent.clientWidth, 160);
    const plan = layout(this.status, width);
    this.root.setAttribute("viewBox", `0 0 ${width} ${plan.height}`);
    this.root.setAttribute("width", width);
    this.root.setAttribute("height", plan.height);
    update(this.nodes, plan.nodes, makeNode, updateNode);
    update(this.pods, plan.pods, makePod, updatePod);
    update(this.shards, plan.shards, makeShard, (element, shard) => updateShard(element, shard, this.selected));
    this.reach();
  }
}

// --- where everything stands ---

function layout(status, width) {
  const holders = new Map(status.shards.filter((shard) => shard.holder).map((shard) => [shard.holder, shard]));
  const pods = [
    ...[...holders].map(([name, shard]) => ({name, node: shard.node ?? NO_NODE, shard})),
    ...status.standbys.filter((one) => !holders.has(one.pod)).map((one) => ({name: one.pod, node: one.node ?? NO_NODE, standby: one})),
  ];
  const without = status.shards.filter((shard) => !shard.holder);
  const groups = [...grouped(pods)].sort(([one], [other]) => compare(one, other));
  if (without.length) groups.unshift(["\u0000", without.map((shard) => ({name: `shard-${shard.number}`, node: "\u0000", shard}))]);
  return placed(groups, width);
}

function grouped(pods) {
  const found = new Map();
  for (const pod of pods) found.set(pod.node, [...(found.get(pod.node) ?? []), pod]);
  for (const members of found.values()) members.sort((one, other) => compare(one.name, other.name));
  return found;
}

function placed(groups, width) {
  const plan = {nodes: [], pods: [], shards: [], height: 0};
  let [x, y, tallest] = [0, 0, 0];
  for (const [name, members] of groups) {
    const box = size(members.length, width);
    if (x > 0 && x + box.width > width) [x, y, tallest] = [0, y + tallest + GAP, 0];
    plan.nodes.push({key: name, title: title(name), x, y, ...box});
    members.forEach((pod, at) => place(plan, pod, x + PADDING + (at % box.columns) * (POD.width + GAP), y + TITLE + Math.floor(at / box.columns) * (POD.height + GAP)));
    x += box.width + GAP;
    tallest = Math.max(tallest, box.height);
  }
  plan.height = y + tallest;
  return plan;
}

function size(count, width) {
  const fitting = Math.max(1, Math.floor((width - 2 * PADDING + GAP) / (POD.width + GAP)));
  const columns = Math.min(count <= 2 ? 1 : count <= 6 ? 2 : 3, fitting);
  const rows = Math.ceil(count / columns);
  return {columns, width: 2 * PADDING + columns * (POD.width + GAP) - GAP, height: TITLE + PADDING + rows * (POD.height + GAP) - GAP};
}

function place(plan, pod, x, y) {
  if (pod.node !== "\u0000") plan.pods.push({...pod, key: pod.name, x, y});
  if (pod.shard) plan.shards.push({...pod.shard, key: String(pod.shard.number), x: x + 5 + RADIUS, y: y + POD.height / 2});
}

function title(name) {
  if (name === "\u0000") return "without a holder";
  return name === NO_NODE ? "on no node" : name;
}

const collator = new Intl.Collator("en", {numeric: true});

function compare(one, other) {
  return collator.compare(one, other);
}

// --- elements ---

// Keep one element for each key: make what is new, update all, remove what is gone.
function update(layer, wanted, create, change) {
  const known = new Map([...layer.children].map((element) => [element.dataset.key, element]));
  for (const one of wanted) {
    const element = known.get(one.key) ?? create(one);
    known.delete(one.key);
    element.dataset.key = one.key;
    element.style.transform = `translate(${one.x}px, ${one.y}px)`;
    change(element, one);
    if (!element.parentNode) layer.append(element);
  }
  for (const element of known.values()) element.remove();
}

function makeNode() {
  return svg("g", {class: "node"}, svg("rect", {rx: 8}), svg("text", {x: PADDING, y: 16}), svg("title"));
}

function updateNode(element, node) {
  const [box, text, hint] = element.children;
  box.setAttribute("width", node.width);
  box.setAttribute("height", node.height);
  text.textContent = cut(node.title, Math.floor(node.width / 8));
  hint.textContent = node.title;
}

function makePod() {
  return svg("g", {class: "pod"}, svg("rect", {rx: 6, ...POD}), svg("text", {class: "sign", x: 12, y: 31}), svg("text", {x: 42, y: 20}), svg("text", {class: "small", x: 42, y: 37}), svg("title"));
}

function updatePod(element, pod) {
  const [, sign, name, what, hint] = element.children;
  const standby = pod.standby;
  element.setAttribute("class", `pod ${standby ? (standby.eligible ? "spare" : "unfit") : "holder"}`);
  sign.textContent = standby ? (standby.eligible ? "▢" : "!") : "";
  name.textContent = short(pod.name);
  what.textContent = standby ? (standby.eligible ? "spare" : "not eligible") : `shard ${pod.shard.number}`;
  hint.textContent = [pod.name, standby?.why ?? pod.shard?.why].filter(Boolean).join(": ");
}

function makeShard() {
  const box = {x: -RADIUS, y: -RADIUS, width: 2 * RADIUS, height: 2 * RADIUS};
  return svg("g", {class: "shard", role: "button", tabindex: "-1"}, svg("rect", box), svg("text", {"aria-hidden": "true", y: 1}), svg("text", {class: "small", "aria-hidden": "true", y: 12}), svg("title"));
}

function updateShard(element, shard, selected) {
  const [box, number, sign, hint] = element.children;
  const state = shard.served === true ? "served" : shard.served === false ? "lost" : "unknown";
  element.setAttribute("class", `shard ${state}`);
  element.setAttribute("aria-pressed", String(shard.number === selected));
  const where = shard.holder ? `held by ${shard.holder}${shard.node ? ` on node ${shard.node}` : ""}` : "without a holder";
  const label = `Shard ${shard.number}, ${SERVED[shard.served]}, ${where}${shard.why ? `: ${shard.why}` : ""}`;
  if (element.getAttribute("aria-label") !== label) element.setAttribute("aria-label", label);
  hint.textContent = label;
  box.setAttribute("rx", state === "served" ? RADIUS : 3);
  number.textContent = shard.number;
  sign.textContent = SIGNS[shard.served];
}

// `acme-coreapp-3` is called coreapp-3: the cluster's name stands above.
function short(name) {
  const parts = name.split("-");
  return cut(parts.slice(-2).join("-"), 11);
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

// Return the shards as a list for those who do not see the picture.
export function asText(status, since) {
  return status.shards.map((shard) => {
    const place = shard.holder ? `${shard.holder} on ${shard.node ?? "no node"}, epoch ${shard.epoch ?? "unknown"}` : "no holder";
    return make("li", {value: shard.number}, `${SIGNS[shard.served]} ${SERVED[shard.served]}; ${place}`, shard.since ? ", since " : "", shard.since ? since(shard.since) : "", shard.why ? `: ${shard.why}` : "");
  });
}
