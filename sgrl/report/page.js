"use strict";
// Light and dark, and charts that show their values.

const themed = (theme) => {
  document.documentElement.style.colorScheme = theme ?? "";
  try {
    if (theme) localStorage.setItem("sgrl-theme", theme);
  } catch {
    // a browser may keep nothing for pages from disk
  }
};
const dark = () => getComputedStyle(document.documentElement).getPropertyValue("color-scheme") === "dark" ||
  (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
const toggleTheme = () => themed(dark() ? "light" : "dark");
try {
  themed(localStorage.getItem("sgrl-theme"));
} catch {
  themed(null);
}
document.querySelector(".theme").addEventListener("click", toggleTheme);
document.addEventListener("keydown", (event) => {
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && event.key === "t" && !event.target.closest?.("input:not([type=range]), select")) toggleTheme();
});

for (const chart of document.querySelectorAll(".chart:has([data-points])")) {
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
