// Values under the pointer, under a finger or by arrow keys, and legends that switch series on and off.
// Without scripts the page loses nothing else: curves, tables and downloads are there from the start.
"use strict";
for (const figure of document.querySelectorAll("figure[data-chart]")) chart(figure);

function chart(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot"), tip = figure.querySelector(".tip");
  const dot = figure.querySelector(".dot"), guide = figure.querySelector(".guide");
  const off = { group: new Set(), style: new Set() };
  let at = null; // the point shown: {series, index}

  const along = (axis, value) =>
    axis.log ? Math.log(value / axis.low) / Math.log(axis.high / axis.low) : (value - axis.low) / (axis.high - axis.low);
  const series = data.series.map((one, number) => ({
    ...one, number,
    points: one.x.flatMap((x, index) => {
      const y = one.y[index];
      if (x === null || y === null || (data.y.log && y <= 0)) return [];
      const right = along(data.x, x), down = 1 - along(data.y, y);
      return down < -0.001 || down > 1.001 ? [] : [{ x, y, right, down, low: one.low?.[index], high: one.high?.[index] }];
    }),
  }));
  const visible = () => series.filter((one) => one.points.length && !off.group.has(one.group) && !off.style.has(one.style));
  const text = (value, digits) => value.toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "\u2212");

  function show(one, index) {
    const point = one.points[index], colour = `var(--c${one.group % 8})`;
    at = { series: one, index };
    for (const mark of [dot, guide]) mark.removeAttribute("visibility");
    dot.setAttribute("cx", `${100 * point.right}%`); dot.setAttribute("cy", `${100 * point.down}%`);
    guide.setAttribute("x1", `${100 * point.right}%`); guide.setAttribute("x2", `${100 * point.right}%`);
    dot.style.color = colour; tip.style.setProperty("--series", colour);
    const line = (label, value, rest = "") => {
      const row = document.createElement("span"), number = document.createElement("em");
      number.textContent = value; row.append(`${label} `, number, rest);
      return row;
    };
    const name = document.createElement("b");
    name.textContent = one.name;
    const interval = point.low == null || point.high == null ? "" : ` (${text(point.low, 4)}\u00a0to\u00a0${text(point.high, 4)})`;
    tip.replaceChildren(name, line(data.x.label, text(point.x, 7)), line(data.y.label, text(point.y, 4), interval));
    tip.hidden = false;
    const box = plot.getBoundingClientRect(), x = point.right * box.width, y = point.down * box.height, room = 14;
    const left = x + room + tip.offsetWidth <= box.width ? x + room : x - room - tip.offsetWidth;
    const frame = figure.getBoundingClientRect();
    const least = frame.left - box.left, most = frame.right - box.left - tip.offsetWidth;
    const top = y - room - tip.offsetHeight >= -30 ? y - room - tip.offsetHeight : y + room;
    tip.style.transform = `translate(${Math.max(least, Math.min(most, left))}px, ${top}px)`;
  }
  function hide() {
    at = null; tip.hidden = true;
    for (const mark of [dot, guide]) mark.setAttribute("visibility", "hidden");
  }
  function nearest(x, y) {
    const box = plot.getBoundingClientRect();
    let best = null, least = Infinity;
    for (const one of visible()) one.points.forEach((point, index) => {
      const distance = Math.hypot(box.left + point.right * box.width - x, box.top + point.down * box.height - y);
      if (distance < least) { least = distance; best = [one, index]; }
    });
    if (best) show(...best);
  }
  plot.addEventListener("pointermove", (event) => nearest(event.clientX, event.clientY));
  plot.addEventListener("pointerdown", (event) => nearest(event.clientX, event.clientY));
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  document.addEventListener("pointerdown", (event) => { if (!plot.contains(event.target)) hide(); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const all = visible(), steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (!all.length) return;
    if (event.key === "Escape") return hide();
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const now = at ? all.indexOf(at.series) : -1, one = all[(now + (event.key === "ArrowUp" ? -1 : 1) + all.length) % all.length];
      const x = at ? at.series.points[at.index].right : 0;
      show(one, one.points.reduce((best, point, index) => Math.abs(point.right - x) < Math.abs(one.points[best].right - x) ? index : best, 0));
    } else if (event.key in steps) {
      const one = at ? at.series : all[0], last = one.points.length - 1;
      show(one, at ? Math.max(0, Math.min(last, at.index + steps[event.key])) : steps[event.key] > 0 ? 0 : last);
    } else return;
    event.preventDefault();
  });
  for (const button of figure.querySelectorAll(".legend button")) button.addEventListener("click", () => {
    const [kind, value] = button.dataset.group ? ["group", Number(button.dataset.group)] : ["style", button.dataset.style];
    const on = off[kind].delete(value);
    if (!on) off[kind].add(value);
    button.setAttribute("aria-pressed", String(on));
    for (const drawn of figure.querySelectorAll("[data-series]")) {
      const one = series[drawn.dataset.series];
      drawn.classList.toggle("off", off.group.has(one.group) || off.style.has(one.style));
    }
    for (const label of figure.querySelectorAll("text.end")) label.classList.toggle("off", off.group.has(Number(label.dataset.group)));
    hide();
  });
}
