// Shows what the dashboard's process sends. It only reads: there is nothing here that changes a cluster.

import {byId, list, make, replace, roving, say, span} from "./dom.js";
import {Picture, asText} from "./picture.js";

const LEVELS = {ok: "✓ ok", warning: "! warning", critical: "✕ critical", unknown: "? unknown"};
const SILENT = 12000; // milliseconds; the process sends something every 5 s at least

const heard = {at: performance.now(), age: 0, isReachable: true, trouble: "", isOpen: false, everOpen: false};
const clock = {at: Date.now(), received: performance.now()};
let stream = null;
let shown = null;
let entries = [];

// --- what is selected: namespace, cluster and shard stand behind the # of the address ---

function selection() {
  const [namespace = "", cluster = "", shard = ""] = location.hash.slice(1).split("/").map(decoded);
  return {namespace, cluster: cluster ? cluster : "", shard: /^\d+$/.test(shard) ? Number(shard) : null};
}

// An address that was cut off while it was copied selects nothing.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function address(namespace, cluster, shard = null) {
  return `#${[namespace, cluster, ...(shard === null ? [] : [String(shard)])].map(encodeURIComponent).join("/")}`;
}

function selectShard(number) {
  if (shown) location.hash = address(shown.namespace, shown.name, number);
}

// --- the stream ---

function connect() {
  stream?.close();
  const {namespace, cluster, shard} = selection();
  const query = new URLSearchParams(cluster ? {namespace, cluster} : {});
  if (shard !== null) query.set("shard", shard);
  stream = new EventSource(`events?${query}`);
  stream.addEventListener("open", () => Object.assign(heard, {isOpen: true, everOpen: true}));
  stream.addEventListener("error", () => {
    heard.isOpen = false;
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
    showConnection();
  });
  receive("clusters", showClusters);
  receive("cluster", showCluster);
  receive("connection", ({isReachable, ageSeconds, trouble}) => {
    Object.assign(heard, {at: performance.now(), age: ageSeconds ?? 0, isReachable, trouble, isOpen: true, everOpen: true});
    showConnection();
  });
}

function receive(event, show) {
  stream.addEventListener(event, ({data}) => show(JSON.parse(data)));
}

function showConnection() {
  const since = (performance.now() - heard.at) / 1000;
  const isLost = heard.everOpen && (!heard.isOpen || since * 1000 > SILENT);
  const state = isLost ? "lost" : !heard.everOpen ? "waiting" : heard.isReachable ? "live" : "away";
  document.body.dataset.connection = state;
  say(byId("connection-text"), {
    lost: "✕ The dashboard's own process does not answer. Run kubectl whatsapp dashboard again.",
    waiting: "Connecting",
    live: "✓ Live",
    away: `! The API server does not answer${heard.trouble ? ` (${heard.trouble})` : ""}.`,
  }[state]);
  const age = span(heard.age + since).replace(/(\d)([a-z])$/, "$1 $2");
  say(byId("connection-age"), state === "lost" || state === "away" ? `Last seen ${age} ago.` : "");
}

const problems = {clusters: "", cluster: ""};

function showProblem(of, text) {
  problems[of] = text;
  say(byId("problem"), Object.values(problems).filter(Boolean).join(" "));
  byId("problem").hidden = !byId("problem").textContent;
}

// --- the list of clusters ---

function showClusters({clusters, problem}) {
  const nav = byId("clusters");
  nav.hidden = clusters.length < 2;
  showProblem("clusters", problem);
  if (problem && !clusters.length) byId("cluster").hidden = true;
  const keys = clusters.map((one) => `${one.namespace}/${one.name}`).join(" ");
  if (keys !== nav.dataset.keys) {
    nav.dataset.keys = keys;
    makeEntries(clusters);
  }
  clusters.forEach((one, at) => updateEntry(entries[at], one));
  filter();
}

function makeEntries(clusters) {
  const groups = new Map();
  entries = clusters.map((one) => {
    const sign = make("span", {class: "badge"});
    const name = make("span", {class: "name"}, one.name);
    const line = make("span", {class: "few"});
    const link = make("a", {href: address(one.namespace, one.name), tabindex: "-1"}, sign, name, line);
    const entry = make("li", {}, link);
    if (!groups.has(one.namespace)) groups.set(one.namespace, make("ul", {"aria-label": `Clusters of namespace ${one.namespace}`}));
    groups.get(one.namespace).append(entry);
    return {entry, link, sign, line, key: `${one.namespace}/${one.name}`};
  });
  byId("clusters-list").replaceChildren(...[...groups].flatMap(([name, group]) => [make("h2", {}, name), group]));
}

function updateEntry({link, sign, line, key}, one) {
  sign.className = `badge ${one.level}`;
  say(sign, LEVELS[one.level].slice(0, 1));
  say(line, one.shards === undefined ? one.level : `${one.served}/${one.shards} served, ${one.spares} ${one.spares === 1 ? "spare" : "spares"}`);
  link.title = one.sentence;
  link.setAttribute("aria-label", `${one.name}: ${LEVELS[one.level].slice(2)}. ${one.sentence}`);
  if (shown && key === `${shown.namespace}/${shown.name}`) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
}

function filter() {
  const text = byId("filter").value.trim().toLowerCase();
  let count = 0;
  for (const {entry, key} of entries) {
    entry.hidden = !key.toLowerCase().includes(text);
    count += entry.hidden ? 0 : 1;
  }
  for (const group of byId("clusters-list").querySelectorAll("ul")) {
    const isEmpty = [...group.children].every((one) => one.hidden);
    group.hidden = isEmpty;
    group.previousElementSibling.hidden = isEmpty;
  }
  say(byId("clusters-count"), text ? `${count} of ${entries.length} clusters` : `${entries.length} clusters`);
  reachCluster();
}

// --- one cluster ---

function showCluster(found) {
  shown = found;
  const {status, problem = ""} = found;
  const name = `${found.namespace}/${found.name}`;
  say(byId("title"), name);
  byId("cluster").hidden = !status;
  showProblem("cluster", problem);
  for (const {link, key} of entries) {
    if (key === name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  document.title = status ? `${LEVELS[status.verdict.level].slice(0, 1)} ${name}` : name;
  if (!status) return;
  Object.assign(clock, {at: Date.parse(status.at), received: performance.now()});
  showAges(); // what is the same but for its age stays
  showVerdict(status);
  picture.show(status, selection().shard);
  list(byId("shards"), asText(status, age));
  showOperation(status);
  showSpares(status);
  list(byId("handovers"), handovers(status.handovers));
  list(byId("conditions"), status.conditions.map(condition));
  list(byId("operator"), operator(status));
  byId("steps-part").hidden = !status.nextSteps.length;
  list(byId("steps"), status.nextSteps.map((step) => make("code", {}, step)));
  showWhy(found.why);
  tick();
}

function showVerdict({verdict, reason, message, inaction, unread}) {
  byId("level").className = `badge ${verdict.level}`;
  say(byId("level"), LEVELS[verdict.level]);
  say(byId("sentence"), verdict.sentence);
  say(byId("message"), message && !verdict.sentence.includes(message) ? `The operator reported ${reason}: ${message}` : "");
  list(byId("inaction"), inaction);
  list(byId("unread"), Object.entries(unread).map(([what, why]) => `could not read ${what} (${why})`));
}

function showOperation({operation}) {
  byId("operation-part").hidden = !operation;
  if (!operation) return;
  const {step, number, of, shardsBefore, shardsAfter, attempts, comesNext, started, deadline} = operation;
  const change = shardsBefore === shardsAfter ? "" : `, shards ${shardsBefore ?? "?"} → ${shardsAfter ?? "?"}`;
  say(byId("operation"), `Step ${number} of ${of}: ${step}${change}${attempts > 1 ? `, attempt ${attempts}` : ""}`);
  Object.assign(byId("operation-progress"), {max: of, value: number});
  for (const id of ["deadline", "deadline-progress"]) byId(id).hidden = !deadline;
  Object.assign(byId("deadline").dataset, {until: deadline ?? "", from: started ?? ""});
  byId("next-label").hidden = !comesNext.length;
  list(byId("comes-next"), comesNext);
}

function showSpares({standbys, specSpares}) {
  const able = standbys.filter((one) => one.eligible).length;
  say(byId("spares-count"), `${able} of ${standbys.length} could take a shard${specSpares === undefined ? "" : `; the spec asks for ${specSpares}`}.`);
  list(byId("spares"), standbys.map((one) => `${one.eligible ? "▢" : "!"} ${one.pod} on ${one.node ?? "no node"}: ${one.eligible ? "eligible" : `not eligible, ${one.why}`}`));
}

const PHASES = [["detect", "detectMilliseconds"], ["commit", "commitMilliseconds"], ["serve", "serveMilliseconds"]];

function handovers(all) {
  const total = (one) => PHASES.reduce((sum, [, field]) => sum + (one[field] ?? 0), 0);
  const longest = Math.max(1, ...all.map(total));
  return all.map((one) => {
    const phases = PHASES.filter(([, field]) => one[field] !== undefined);
    const bar = make("div", {class: "bar", "aria-hidden": "true"}, ...phases.map(([name, field]) => segment(name, (100 * one[field]) / longest)));
    const times = phases.map(([name, field]) => `${name} ${one[field]} ms`).join(", ");
    const head = make("span", {}, `${one.kind} of shard ${one.shard}, ${one.from ?? "no holder"} → ${one.to}`);
    return make("li", {}, head, make("span", {class: "few"}, `${one.evidence}`, one.at ? ", " : "", one.at ? age(one.at, " ago") : ""), bar, make("span", {class: "few"}, times || "no times yet"));
  });
}

function segment(name, percent) {
  const part = make("span", {class: `phase ${name}`});
  part.style.width = `${percent}%`;
  return part;
}

function condition({type, status, reason, message, since}) {
  const sign = {True: "is true", False: "is false"}[status] ?? "is unknown";
  return make("li", {}, make("strong", {}, type), ` ${sign}: ${reason}`, since ? ", for " : "", since ? age(since) : "", make("span", {class: "few"}, message));
}

function operator({leader, certificateExpires}) {
  const lines = [];
  if (!leader) lines.push("? The operator's Lease could not be read.");
  else if (!leader.holder) lines.push("✕ No operator leads.");
  else lines.push(make("span", {}, `${leader.alive ? "✓" : "✕"} ${leader.holder} ${leader.alive ? "leads" : "led, but no longer leads"}; its Lease was renewed `, leader.renewed ? age(leader.renewed, " ago") : "never"));
  if (leader?.replicasReady !== undefined) lines.push(`${leader.replicasReady} of its replicas ${leader.replicasReady === 1 ? "is" : "are"} ready`);
  if (certificateExpires) lines.push(`The certificate expires on ${certificateExpires.slice(0, 10)}`);
  return lines;
}

// --- why ---

function showWhy(why) {
  replace(byId("why"), whyLines(why));
  const shard = why.shard;
  byId("shard-part").hidden = !shard;
  if (!shard) return;
  say(byId("shard-title"), `Shard ${shard.shard}`);
  const speaks = shard.evidence.filter((one) => one.holds).map((one) => `${one.evidence} holds (${one.certainty.toLowerCase()})`);
  const silent = shard.evidence.filter((one) => !one.holds).map((one) => one.evidence);
  const able = shard.candidates.filter((one) => one.eligible).map((one) => `✓ ${one.pod} could take it`);
  const unable = shard.candidates.filter((one) => !one.eligible).map((one) => `✕ ${one.pod}: ${one.why}`);
  const parts = [
    paragraph(`${shard.state ? `${shard.state}. ` : ""}${shard.sentence}`),
    lines(speaks),
    lines(able),
    more("Evidence that does not hold", silent),
    more("Coreapps that could not take it", unable),
  ];
  replace(byId("shard"), parts.filter(Boolean));
}

function whyLines(why) {
  if (why.problem) return [paragraph(why.problem), ...(why.reported ? [paragraph(`The operator reported ${why.reported}`)] : [])];
  return [
    make("p", {}, make("strong", {id: "rule"}, why.rule), " decides. ", why.sentence),
    why.stopped && make("p", {}, make("strong", {}, why.stopped)),
    why.meaning && paragraph(`It means: ${why.meaning}`),
    why.whatChangesIt && paragraph(`What to do: ${why.whatChangesIt}`),
    lines(why.evidence),
    ...why.also.map((one) => paragraph(`Also holds: ${one.rule}. ${one.why}`)),
    why.reported && paragraph(`The operator reported ${why.reported}`),
    why.differs && paragraph(`That differs from this result. ${why.differs}`),
    more("Rules above that do not hold", why.saidNo.map((one) => one.rule)),
    more("Assumed, because only the operator can know it", why.granted),
  ].filter(Boolean);
}

function paragraph(text) {
  return make("p", {}, text);
}

function lines(texts) {
  return texts.length ? make("ul", {}, ...texts.map((text) => make("li", {}, text))) : null;
}

const open = new Set(); // what a person has opened stays open when it is drawn again

function more(title, texts) {
  if (!texts.length) return null;
  const details = make("details", {"data-title": title}, make("summary", {}, `${title} (${texts.length})`), lines(texts));
  details.open = open.has(title);
  details.addEventListener("toggle", () => (details.open ? open.add(title) : open.delete(title)));
  return details;
}

// --- time ---

// Return an element with the time since then; it goes on by itself, from the API server's clock.
function age(since, suffix = "") {
  const element = make("time", {datetime: since, "data-suffix": suffix, title: since});
  showAge(element);
  return element;
}

function now() {
  return clock.at + performance.now() - clock.received;
}

function showAge(element) {
  say(element, span((now() - Date.parse(element.dateTime)) / 1000) + element.dataset.suffix);
}

function showAges() {
  document.querySelectorAll("time").forEach(showAge);
}

function tick() {
  showAges();
  showConnection();
  const {until, from} = byId("deadline").dataset;
  if (!until) return;
  const left = (Date.parse(until) - now()) / 1000;
  say(byId("deadline"), left >= 0 ? `Deadline in ${span(left)}` : `The deadline was ${span(-left)} ago`);
  const whole = from ? (Date.parse(until) - Date.parse(from)) / 1000 : 0;
  if (whole > 0) Object.assign(byId("deadline-progress"), {max: whole, value: Math.min(whole, Math.max(0, whole - left))});
}

const picture = new Picture(byId("picture"), selectShard);
const reachCluster = roving(byId("clusters-list"), "a");
byId("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => event.key === "Escape" && selection().shard !== null && selectShard(null));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands behind the # is what is selected
  byId("main").focus();
});
addEventListener("hashchange", connect);
setInterval(tick, 1000);
connect();
