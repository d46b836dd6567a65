// Shows values under the pointer, under a finger or by arrow keys, and lets the legend hide series.
// Without scripts the page loses nothing else: curves, tables and downloads do not need them.
"use strict";

const NUM_COLORS = 8;
const KEY_STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

for (const figure of document.querySelectorAll("figure[data-chart]")) addInteraction(figure);

function addInteraction(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot"), tip = figure.querySelector(".tip");
  const dot = figure.querySelector(".dot"), guide = figure.querySelector(".guide");
  const hidden = { group: new Set(), style: new Set() };
  const allSeries = data.series.map((series) => ({ ...series, points: pointsOf(series, data) }));
  let current = null; // the point that the tip shows: {series, index}

  const isHidden = (series) => hidden.group.has(series.group) || hidden.style.has(series.style);
  const visibleSeries = () => allSeries.filter((series) => series.points.length && !isHidden(series));

  function show(series, index) {
    const point = series.points[index], color = `var(--c${series.group % NUM_COLORS})`;
    current = { series, index };
    for (const mark of [dot, guide]) mark.removeAttribute("visibility");
    dot.setAttribute("cx", `${100 * point.right}%`);
    dot.setAttribute("cy", `${100 * point.down}%`);
    dot.style.color = color;
    guide.setAttribute("x1", `${100 * point.right}%`);
    guide.setAttribute("x2", `${100 * point.right}%`);
    tip.style.setProperty("--series", color);
    tip.replaceChildren(...tipLines(series, point, data));
    tip.hidden = false;
    moveTip(point);
  }

  function moveTip(point) {
    const box = plot.getBoundingClientRect(), frame = figure.getBoundingClientRect(), gap = 14;
    const x = point.right * box.width, y = point.down * box.height;
    const left = x + gap + tip.offsetWidth <= box.width ? x + gap : x - gap - tip.offsetWidth;
    const top = y - gap - tip.offsetHeight >= -30 ? y - gap - tip.offsetHeight : y + gap;
    const minLeft = frame.left - box.left, maxLeft = frame.right - box.left - tip.offsetWidth;
    tip.style.transform = `translate(${Math.max(minLeft, Math.min(maxLeft, left))}px, ${top}px)`;
  }

  function hide() {
    current = null;
    tip.hidden = true;
    for (const mark of [dot, guide]) mark.setAttribute("visibility", "hidden");
  }

  function showNearest(event) {
    const box = plot.getBoundingClientRect();
    let nearest = null, minDistance = Infinity;
    for (const series of visibleSeries()) series.points.forEach((point, index) => {
      const x = box.left + point.right * box.width, y = box.top + point.down * box.height;
      const distance = Math.hypot(x - event.clientX, y - event.clientY);
      if (distance < minDistance) { minDistance = distance; nearest = [series, index]; }
    });
    if (nearest) show(...nearest);
  }

  function changeSeries(visible, step) {
    const position = current ? visible.indexOf(current.series) : -1;
    const series = visible[(position + step + visible.length) % visible.length];
    const x = current ? current.series.points[current.index].right : 0;
    const distances = series.points.map((point) => Math.abs(point.right - x));
    show(series, distances.indexOf(Math.min(...distances)));
  }

  function changePoint(visible, step) {
    const series = current ? current.series : visible[0], last = series.points.length - 1;
    if (!current) show(series, step > 0 ? 0 : last);
    else show(series, Math.max(0, Math.min(last, current.index + step)));
  }

  plot.addEventListener("pointermove", showNearest);
  plot.addEventListener("pointerdown", showNearest);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  document.addEventListener("pointerdown", (event) => { if (!plot.contains(event.target)) hide(); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const visible = visibleSeries();
    if (!visible.length) return;
    if (event.key === "Escape") return hide();
    if (event.key === "ArrowUp") changeSeries(visible, -1);
    else if (event.key === "ArrowDown") changeSeries(visible, 1);
    else if (event.key in KEY_STEPS) changePoint(visible, KEY_STEPS[event.key]);
    else return;
    event.preventDefault();
  });
  for (const button of figure.querySelectorAll(".legend button")) button.addEventListener("click", () => {
    const isGroup = button.dataset.group !== undefined;
    const names = isGroup ? hidden.group : hidden.style;
    const name = isGroup ? Number(button.dataset.group) : button.dataset.style;
    const wasHidden = names.delete(name);
    if (!wasHidden) names.add(name);
    button.setAttribute("aria-pressed", String(wasHidden));
    for (const curve of figure.querySelectorAll("[data-series]")) curve.classList.toggle("off", isHidden(allSeries[curve.dataset.series]));
    for (const label of figure.querySelectorAll("text.end")) label.classList.toggle("off", hidden.group.has(Number(label.dataset.group)));
    hide();
  });
}

function pointsOf(series, data) {
  const points = [];
  series.x.forEach((x, index) => {
    const y = series.y[index];
    if (x === null || y === null || (data.y.log && y <= 0)) return;
    const right = fraction(data.x, x), down = 1 - fraction(data.y, y);
    const isOutside = down < -0.001 || down > 1.001;
    if (!isOutside) points.push({ x, y, right, down, low: series.low?.[index], high: series.high?.[index] });
  });
  return points;
}

function fraction(axis, value) {
  if (axis.log) return Math.log(value / axis.low) / Math.log(axis.high / axis.low);
  return (value - axis.low) / (axis.high - axis.low);
}

function tipLines(series, point, data) {
  const name = document.createElement("b");
  name.textContent = series.name;
  const hasInterval = point.low != null && point.high != null;
  const interval = hasInterval ? ` [${numberText(point.low, 4)},\u00a0${numberText(point.high, 4)}]` : "";
  const xLine = tipLine(data.x.label, numberText(point.x, 7), "");
  return [name, xLine, tipLine(data.y.label, numberText(point.y, 4), interval)];
}

function tipLine(label, value, interval) {
  const line = document.createElement("span"), number = document.createElement("em");
  number.textContent = value;
  line.append(`${label} `, number, interval);
  return line;
}

function numberText(value, digits) {
  return value.toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "\u2212");
}
