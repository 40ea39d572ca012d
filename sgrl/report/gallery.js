"use strict";
// The gallery: the index of all images is in the page, their graphs come in chunks when they are looked at.

const gallery = document.querySelector("#gallery");
const index = JSON.parse(document.querySelector("#index").textContent);
const { items, words, runs } = index;
const tools = gallery.querySelector(".tools");
const strip = gallery.querySelector(".strip");
const stage = gallery.querySelector(".stage");

// ---- chunks: from the page itself if it is a single file, else from data/N.js beside it (fetch has no file: URLs)

const chunks = new Map();
const waiting = new Map();
globalThis.sgrlChunk = (number, details) => waiting.get(number)(details);
const chunk = (number) => {
  if (!chunks.has(number)) {
    const inside = document.querySelector(`#chunk-${number}`);
    const loaded = new Promise((resolve, reject) => {
      if (inside) return resolve(JSON.parse(inside.textContent));
      waiting.set(number, resolve);
      const script = el("script", { src: `data/${number}.js`, onerror: () => reject(new Error(`data/${number}.js is missing`)) });
      document.head.append(script);
    });
    chunks.set(number, loaded);
  }
  return chunks.get(number);
};
const details = async (position) => (await chunk(Math.floor(position / index.chunk)))[position % index.chunk];

// ---- entries: an image, or a video with its frames

const entries = [];
const entryOf = [];
{
  const videos = new Map();
  items.forEach((item, position) => {
    let entry = item.video === undefined ? undefined : videos.get(item.video);
    if (!entry) {
      entry = { order: entries.length, video: item.video, frames: [] };
      entries.push(entry);
      if (item.video !== undefined) videos.set(item.video, entry);
    }
    entry.frames.push(position);
    entryOf[position] = entry;
  });
}
const judge = () => Number(tools.run?.value ?? runs.length - 1);
const score = (position, run = judge()) => items[position].runs[run][0];
const mean = (entry, run = judge()) => entry.frames.reduce((sum, position) => sum + score(position, run), 0) / entry.frames.length;

// ---- sorting and filtering

const change = (entry) => mean(entry, runs.length - 1) - mean(entry, 0);
const orders = {
  order: () => 0,
  worst: (a, b) => mean(a) - mean(b),
  best: (a, b) => mean(b) - mean(a),
  gain: (a, b) => change(b) - change(a),
  loss: (a, b) => change(a) - change(b),
};
const [OBJECTS, RELATIONS, MISSED, FAILED] = [1, 2, 3, 4];
const kinds = {
  all: () => true,
  objects: (facts) => facts[OBJECTS] > 0,
  relations: (facts) => facts[RELATIONS] > 0,
  missed: (facts) => facts[MISSED] > 0,
  failed: (facts) => facts[FAILED] > 0,
  right: (facts) => facts[0] === 1,
};
const text = items.map((item) =>
  [item.id, item.video ?? "", ...item.predicates.concat(item.labels).map((word) => words[word])].join("\n").toLowerCase(),
);
let shown = entries;
let hits = new Set(); // positions that pass the filter
let current = -1;

const filter = () => {
  const wanted = tools.text.value.trim().toLowerCase();
  const predicate = tools.predicate.value === "" ? null : Number(tools.predicate.value);
  const kind = kinds[tools.kind.value];
  const passes = (position) =>
    (predicate === null || items[position].predicates.includes(predicate)) &&
    text[position].includes(wanted) &&
    kind(items[position].runs[judge()]);
  hits = new Set([...items.keys()].filter(passes));
  const order = orders[tools.sort.value];
  shown = entries.filter((entry) => entry.frames.some((position) => hits.has(position)));
  shown.sort((a, b) => order(a, b) || a.order - b.order);
  const count = hits.size;
  gallery.querySelector(".tools output").value =
    `${count === items.length ? "" : `${count} of `}${items.length} image${items.length > 1 ? "s" : ""}`;
  thumbnails();
  stage.classList.toggle("none", shown.length === 0);
  if (shown.length) show(shown[0].frames.find((position) => hits.has(position)));
};

// ---- the strip of thumbnails, made as it is scrolled

let made = 0;
const more = () => {
  const part = shown.slice(made, made + 60);
  made += part.length;
  strip.lastElementChild.before(...part.map(thumbnail));
};
const thumbnail = (entry) => {
  const first = entry.frames.find((position) => hits.has(position)) ?? entry.frames[0];
  const item = items[first];
  const value = runs[judge()].scored ? mean(entry) : null;
  const image = el("img", { src: item.image, loading: "lazy", alt: "" });
  image.classList.toggle("pixel", Math.max(item.width, item.height) <= 200);
  const node = el("button", { type: "button", className: "thumb", title: item.video ?? item.id }, image);
  node.dataset.entry = entry.order;
  if (value !== null) {
    const bar = el("i", { className: "bar" });
    bar.style.setProperty("--share", `${100 * value}%`);
    node.append(bar, el("small", {}, value.toFixed(2)));
  }
  if (entry.video !== undefined) node.append(el("b", {}, `▶ ${entry.frames.length}`));
  node.addEventListener("click", () => show(first));
  return node;
};
const thumbnails = () => {
  strip.replaceChildren(el("i", { className: "end" }));
  made = 0;
  more();
  observer.disconnect();
  observer.observe(strip.lastElementChild);
};
const observer = new IntersectionObserver(
  (seen) => {
    if (seen.some((one) => one.isIntersecting) && made < shown.length) {
      more();
      observer.unobserve(strip.lastElementChild); // asks again, should the end still be in view
      observer.observe(strip.lastElementChild);
    }
  },
  { root: strip, rootMargin: "400px" },
);
const mark = () => {
  for (const node of strip.querySelectorAll("[aria-current]")) node.removeAttribute("aria-current");
  const entry = entryOf[current];
  while (made <= shown.indexOf(entry)) more();
  const node = strip.querySelector(`[data-entry="${entry.order}"]`);
  if (!node) return;
  node.setAttribute("aria-current", "true");
  // scrollIntoView would also move the page
  if (node.offsetLeft < strip.scrollLeft) strip.scrollLeft = node.offsetLeft - 8;
  const right = node.offsetLeft + node.offsetWidth - strip.clientWidth;
  if (right > strip.scrollLeft) strip.scrollLeft = right + 8;
};

// ---- panels: the reference and what each run made of it

const triplets = (panel, item) => {
  const name = (number) => el("b", {}, panel.objects[number]?.[0] ?? "?", el("sub", {}, String(number + 1)));
  return el("ul", { className: "triplets" }, ...panel.relations.map(([s, predicate, o, state, reason, match, confidence], number) => {
    const node = el("li", { tabIndex: 0, className: state, title: reason },
      state ? el("i", { className: state }, SIGNS[state]) : null,
      el("span", {}, name(s), " ", el("em", {}, predicate), " ", name(o)));
    Object.assign(node.dataset, { r: number, s, o, predicate });
    if (typeof confidence === "number") node.append(el("small", { title: "confidence" }, confidence.toFixed(2)));
    if (panel.found) {
      const marks = panel.found[number].map((found, run) =>
        el("i", { className: found ? "ok" : "bad", title: `${runs[run].name}: ${found ? "found" : "missed"}` }, found ? "✓" : "✗"));
      node.append(el("span", { className: "marks" }, ...marks));
    }
    node.classList.toggle("wanted", tools.predicate.value !== "" && predicate === words[Number(tools.predicate.value)]);
    return node;
  }));
};

const panelOf = (title, note, panel, item, extra) => {
  const node = el("section", { className: "panel" }, el("h4", {}, title, el("small", {}, note)), picture(item, panel));
  if (panel.failed) node.append(el("p", { className: "failed" }, el("i", { className: "bad" }, "✗"), " no graph could be read from this answer"));
  else if (panel.relations.length) node.append(triplets(panel, item));
  else node.append(el("p", { className: "empty" }, "no relations"));
  const [objects, relations] = panel.more;
  if (objects + relations > 0) node.append(el("p", { className: "empty" }, `not shown: ${objects} more objects, ${relations} more relations`));
  const issues = (panel.issues ?? []).map((issue) => el("li", {}, issue));
  node.append(el("details", {}, el("summary", {}, "as written"),
    issues.length ? el("ul", { className: "issues" }, ...issues) : null, el("pre", {}, panel.text)));
  Object.assign(node, extra, { panel });
  return node;
};

/** Show the boxes of a triplet (or of one object), here and what it matched in the other panels. */
const focus = (node, relation, object) => {
  const match = (panel, list, number, position) => (node.isReference ? number : panel[list][number]?.[position]) ?? null;
  const reference = relation !== null ? match(node.panel, "relations", relation, 5) : match(node.panel, "objects", object, 6);
  for (const other of stage.querySelectorAll(".panel")) {
    let r = null;
    let i = null;
    const list = relation !== null ? other.panel.relations : other.panel.objects;
    const place = relation !== null ? 5 : 6;
    if (other === node) [r, i] = [relation, object];
    else if (reference !== null) {
      const found = other.isReference ? reference : list.findIndex((one) => one[place] === reference);
      if (found >= 0) [r, i] = relation !== null ? [found, null] : [null, found];
    }
    const on = new Set();
    if (r !== null && other.panel.relations[r]) {
      const [s, , o] = other.panel.relations[r];
      for (const key of [`i${s}`, `i${o}`, `r${r}`]) on.add(key);
    }
    if (i !== null) {
      on.add(`i${i}`);
      other.panel.relations.forEach(([s, , o], number) => (s === i || o === i) && on.add(`r${number}`));
    }
    other.querySelector(".picture").classList.toggle("focused", on.size > 0);
    for (const part of other.querySelectorAll(".box, .tag, .arrow, .triplets li")) {
      const key = part.dataset.r !== undefined ? `r${part.dataset.r}` : `i${part.dataset.i}`;
      part.classList.toggle("on", on.has(key));
    }
  }
};
const blur = () => {
  for (const part of stage.querySelectorAll(".focused, .on")) part.classList.remove("focused", "on");
};
const aim = (event) => {
  const part = event.target.closest?.(".triplets li, .box, .tag, .arrow");
  if (!part) return blur();
  const { r, i } = part.dataset;
  focus(part.closest(".panel"), r === undefined ? null : Number(r), i === undefined ? null : Number(i));
};
stage.addEventListener("pointerover", aim);
stage.addEventListener("pointerleave", blur);
stage.addEventListener("focusin", aim);
stage.addEventListener("focusout", blur);

// ---- the stage: one image, or one frame of a video with its scrubber

const head = stage.querySelector("h3");
const scrub = stage.querySelector(".scrub");
const range = scrub.querySelector("input");
const play = scrub.querySelector("button");
const panels = stage.querySelector(".panels");
let timer = null;

const show = async (position) => {
  current = position;
  const item = items[position];
  const entry = entryOf[position];
  const image = el("img", { src: item.image });
  // The picture before stays until everything is there: playing a video does not flicker.
  let found;
  try {
    [found] = await Promise.all([details(position), image.decode().catch(() => null)]);
  } catch (error) {
    panels.replaceChildren(el("p", { className: "note warn" }, `${error.message}: keep the whole folder of the report together`));
    return;
  }
  if (current !== position) return;
  head.replaceChildren(item.video === undefined ? item.id : `${item.video} `, item.video === undefined ? "" : el("small", {}, item.id));
  stage.querySelector(".where").textContent = `${shown.indexOf(entry) + 1} of ${shown.length}`;
  const open = new Set([...panels.querySelectorAll("details[open]")].map((one) => one.parentNode.dataset.name));
  const note = (panel) => panel.score ? `objects ${panel.score[1].toFixed(2)} · relations ${panel.score[2].toFixed(2)}` : "";
  const nodes = found.runs.map((panel, run) => panelOf(runs[run].name, note(panel), panel, item, {}));
  if (found.reference) {
    const by = found.reference.relations.length ? `found by ${runs.map((run) => run.name).join(" · ")}` : "";
    nodes.unshift(panelOf("reference", by, found.reference, item, { isReference: true }));
  }
  nodes.forEach((node, number) => {
    node.dataset.name = number;
    node.querySelector("details").open = open.has(String(number));
  });
  const left = panels.scrollLeft;
  panels.replaceChildren(...nodes);
  panels.scrollLeft = left;
  scrub.hidden = entry.frames.length < 2;
  if (!scrub.hidden) {
    range.max = entry.frames.length - 1;
    range.value = entry.frames.indexOf(position);
    scrub.querySelector("output").value = `frame ${item.frame} · ${Number(range.value) + 1} of ${entry.frames.length}`;
    timeline(entry);
  }
  mark();
  for (const next of neighbours(position)) new Image().src = items[next].image;
  stage.dataset.shown = position;
};

/** The score of each frame as a column; those that pass the filter are marked below. */
const timeline = (entry) => {
  const drawing = scrub.querySelector("svg");
  const count = entry.frames.length;
  drawing.setAttribute("viewBox", `0 0 ${count} 100`);
  const columns = entry.frames.map((position, number) => {
    const value = score(position) ?? 1;
    const state = value >= 0.75 ? "ok" : value >= 0.4 ? "near" : "bad";
    const height = 6 + 84 * value;
    return svg("rect", { class: `${runs[judge()].scored ? state : ""} ${hits.has(position) ? "" : "out"} ${position === current ? "here" : ""}`,
      x: number + 0.08, width: 0.84, y: 100 - height, height });
  });
  drawing.replaceChildren(...columns);
};

const neighbours = (position) => {
  const { frames } = entryOf[position];
  const at = frames.indexOf(position);
  return frames.slice(at + 1, at + 4);
};

/** One image or frame on; a video's end leads to the next entry. `skip`: to the next entry at once. */
const step = (by, skip = false) => {
  if (!shown.length) return;
  const entry = entryOf[current];
  const next = entry.frames[entry.frames.indexOf(current) + by];
  if (!skip && next !== undefined) return show(next);
  const place = shown.indexOf(entry) + by;
  const other = shown[Math.max(0, Math.min(shown.length - 1, place))];
  if (other !== entry) show(by > 0 || skip ? other.frames[0] : other.frames.at(-1));
};

const playing = (on) => {
  clearInterval(timer);
  timer = null;
  play.textContent = on ? "❚❚" : "▶";
  play.setAttribute("aria-label", on ? "pause" : "play");
  if (!on) return;
  timer = setInterval(() => {
    const { frames } = entryOf[current];
    show(frames[(frames.indexOf(current) + 1) % frames.length]);
  }, 250);
};

range.addEventListener("input", () => show(entryOf[current].frames[Number(range.value)]));
play.addEventListener("click", () => playing(timer === null));
scrub.querySelector("svg").addEventListener("click", (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  const { frames } = entryOf[current];
  show(frames[Math.min(frames.length - 1, Math.floor(((event.clientX - box.left) / box.width) * frames.length))]);
});
for (const [name, by] of [["previous", -1], ["next", 1]]) {
  stage.querySelector(`.${name}`).addEventListener("click", () => step(by));
}
const boxes = stage.querySelector(".boxes");
const toggleBoxes = () => boxes.setAttribute("aria-pressed", String(!panels.classList.toggle("plain")));
boxes.addEventListener("click", toggleBoxes);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === tools.text) return tools.text.blur();
  if (event.target.closest?.("input:not([type=range]), select, textarea, .chart")) return;
  const keys = {
    ArrowLeft: () => step(-1, event.shiftKey),
    ArrowRight: () => step(1, event.shiftKey),
    "/": () => tools.text.focus(),
    b: toggleBoxes,
    p: () => scrub.hidden || playing(timer === null),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  if (timer !== null && event.key !== "p") playing(false);
  keys[event.key]();
});

// ---- start

const counts = new Map();
for (const item of items) for (const word of item.predicates) counts.set(word, (counts.get(word) ?? 0) + 1);
for (const [word, count] of [...counts].sort((a, b) => (words[a[0]] < words[b[0]] ? -1 : 1))) {
  tools.predicate.add(new Option(`${words[word]} (${count})`, word));
}
tools.addEventListener("input", filter);
tools.addEventListener("submit", (event) => event.preventDefault());
filter();
