"use strict";
// Pictures with boxes, arrows and tags. What a model wrote becomes text nodes and never markup.

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = { ok: "✓", near: "≈", bad: "✗" };

/** An HTML element: properties, then children (text or elements; null is left out). */
const el = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
};
const svg = (tag, attributes, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const arrow = (from, to, tall) => {
  const [sx, sy] = [(from[1] + from[3]) / 20, ((from[2] + from[4]) / 2000) * tall];
  const [ex, ey] = [(to[1] + to[3]) / 20, ((to[2] + to[4]) / 2000) * tall];
  const length = Math.hypot(ex - sx, ey - sy) || 1;
  // A gentle bow keeps a pair's two directions apart.
  const [mx, my] = [(sx + ex) / 2 - (ey - sy) * 0.12, (sy + ey) / 2 + (ex - sx) * 0.12];
  const end = Math.hypot(ex - mx, ey - my) || 1;
  const [hx, hy] = [(3.4 * (ex - mx)) / end, (3.4 * (ey - my)) / end];
  const n = (value) => value.toFixed(2);
  const curve = `M${n(sx)} ${n(sy)}Q${n(mx)} ${n(my)} ${n(ex)} ${n(ey)}`;
  const head = `M${n(ex)} ${n(ey)}l${n(-hx - hy / 2)} ${n(hx / 2 - hy)}l${n(hy)} ${n(-hx)}z`;
  return length < 0.5 ? [] : [
    svg("path", { class: "halo", d: curve }), svg("path", { class: "shaft", d: curve }),
    svg("circle", { cx: n(sx), cy: n(sy), r: 1.2 }), svg("path", { class: "head", d: head }),
  ];
};

const picture = (item, panel) => {
  const tall = (100 * item.height) / item.width;
  const image = el("img", { src: item.image, alt: "" });
  image.classList.toggle("pixel", Math.max(item.width, item.height) <= 200);
  const drawing = svg("svg", { viewBox: `0 0 100 ${tall}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const node = el("div", { className: "picture" }, image, drawing);
  node.style.aspectRatio = `${item.width} / ${item.height}`;
  const { objects, relations } = panel;
  node.classList.toggle("crowded", objects.length > 6 || relations.length > 8);
  const area = (box) => (box[3] - box[1]) * (box[4] - box[2]);
  // Large boxes first, so that a small one inside stays on top and can be pointed at.
  const sorted = [...objects.keys()].sort((a, b) => area(objects[b]) - area(objects[a]));
  for (const number of sorted) {
    const [label, x1, y1, x2, y2, state, reason] = objects[number];
    const place = { x: x1 / 10, y: (y1 * tall) / 1000, width: (x2 - x1) / 10, height: ((y2 - y1) * tall) / 1000 };
    drawing.append(svg("g", { class: `box ${state}`, "data-i": number },
      svg("rect", { class: "halo", ...place }), svg("rect", place)));
    const tag = el("b", { className: `tag ${state}`, title: reason }, `${SIGNS[state] ?? ""} ${number + 1} `, el("span", {}, label));
    tag.dataset.i = number;
    if (x1 < 700) tag.style.left = `${x1 / 10}%`;
    else tag.style.right = `${100 - x2 / 10}%`;
    if (y1 < 90) tag.style.top = `${y1 / 10}%`; // inside the box, or above it
    else tag.style.bottom = `${100 - y1 / 10}%`;
    node.append(tag);
  }
  relations.forEach(([s, , o, state], number) => {
    if (!objects[s] || !objects[o] || s === o) return;
    drawing.append(svg("g", { class: `arrow ${state}`, "data-r": number }, ...arrow(objects[s], objects[o], tall)));
  });
  return node;
};
