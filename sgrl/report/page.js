"use strict";
// Three small things: a triplet shows its boxes, the gallery sorts and filters, a chart shows its values.

for (const panel of document.querySelectorAll(".panel")) {
  const picture = panel.querySelector(".picture");
  const mark = (item) => {
    picture.classList.toggle("focused", item !== null);
    for (const part of picture.querySelectorAll(".on")) part.classList.remove("on");
    if (item === null) return;
    const { s, o, r } = item.dataset;
    for (const part of picture.querySelectorAll(`[data-i="${s}"], [data-i="${o}"], [data-r="${r}"]`)) {
      part.classList.add("on");
    }
  };
  for (const item of panel.querySelectorAll(".triplets li")) {
    item.addEventListener("pointerenter", () => mark(item));
    item.addEventListener("pointerleave", () => mark(null));
    item.addEventListener("focus", () => mark(item));
    item.addEventListener("blur", () => mark(null));
  }
}

const tools = document.querySelector(".tools");
const cards = [...document.querySelectorAll(".card")];
const predicates = new Map(cards.map((card) => [card, JSON.parse(card.dataset.predicates)]));
for (const name of [...new Set([...predicates.values()].flat())].sort()) tools.predicate.add(new Option(name, name));

const number = (card, key) => Number(card.dataset[key]);
const orders = {
  order: (a, b) => number(a, "order") - number(b, "order"),
  gain: (a, b) => number(b, "change") - number(a, "change") || orders.order(a, b),
  loss: (a, b) => number(a, "change") - number(b, "change") || orders.order(a, b),
  worst: (a, b) => number(a, "score") - number(b, "score") || orders.order(a, b),
};
const arrange = () => {
  const wanted = tools.predicate.value;
  let shown = 0;
  for (const card of [...cards].sort(orders[tools.sort.value])) {
    card.hidden = (wanted && !predicates.get(card).includes(wanted)) || (tools.wrong.checked && !number(card, "wrong"));
    shown += !card.hidden;
    card.parentNode.append(card);
  }
  tools.querySelector("output").value = shown === cards.length ? "" : `${shown} of ${cards.length} images`;
};
tools.addEventListener("change", arrange);
tools.addEventListener("submit", (event) => event.preventDefault());
arrange(); // a browser that kept the form's state on reload shows what it says

for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const output = chart.querySelector("output");
  const cursor = chart.querySelector(".cursor");
  const points = JSON.parse(svg.dataset.points); // [step, value, x, y]
  const initial = output.value;
  let at = points.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(points.length - 1, index));
    const [step, value, x, y] = points[at];
    cursor.removeAttribute("hidden");
    cursor.querySelector("line").setAttribute("transform", `translate(${x} 0)`);
    cursor.querySelector("circle").setAttribute("transform", `translate(${x} ${y})`);
    output.value = `step ${step}: ${value}`;
  };
  const hide = () => {
    cursor.setAttribute("hidden", "");
    output.value = initial;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let nearest = 0;
    points.forEach((point, index) => {
      if (Math.abs(point[2] - x) < Math.abs(points[nearest][2] - x)) nearest = index;
    });
    show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(at));
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(Number.isFinite(move) ? at + move : move < 0 ? 0 : points.length - 1);
  });
}
