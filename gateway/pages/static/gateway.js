// What pages gain where scripts run; every form and table works without it.
"use strict";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    // Browsers lend the clipboard to https and localhost only: select the text, so that a key press copies it.
    const text = button.parentElement.querySelector("code, pre");
    if (text) getSelection().selectAllChildren(text);
    return;
  }
  button.textContent = button.dataset.done;
  setTimeout(() => { button.textContent = before; }, 1600);
});

// Filters apply as they are chosen; the button for it goes.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-auto]");
  if (form) form.requestSubmit();
});

// A form is sent once.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  const button = event.submitter;
  if (button) setTimeout(() => { button.disabled = true; });
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button:disabled:not([data-needs])")) button.disabled = false;
});

// What ends something for good waits until its name was typed.
const plain = (text) => text.trim().split(/\s+/).join(" ");

function watchNames() {
  for (const input of document.querySelectorAll("input[data-name]")) {
    const button = input.form.querySelector("button.danger");
    button.dataset.needs = "name";
    const check = () => { button.disabled = plain(input.value) !== plain(input.dataset.name); };
    input.addEventListener("input", check);
    check();
  }
}

function drawCharts() {
  for (const place of document.querySelectorAll("[data-chart]")) draw(place, JSON.parse(place.dataset.chart));
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Stacked columns of one value a day: `days` as ISO dates, `series` as {name, tone, values}, exact amounts as text.
function draw(place, { days, series, cumulative }) {
  if (typeof uPlot === "undefined" || !days.length) return;
  const times = days.map((day) => Date.parse(`${day}T00:00:00Z`) / 1000);
  const layers = series.map((one) => one.values.map(Number));
  const tops = [];
  layers.forEach((layer, at) => tops.push(layer.map((value, day) => value + (at ? tops[at - 1][day] : 0))));
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: "compact" });
  const ink = colour("ink-faint"), line = colour("line");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const options = {
    width: place.clientWidth, height: 272, legend: { show: false }, cursor: { y: false, points: { show: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    // Half a day more at both ends: columns are drawn whole.
    scales: { x: { range: (_, low, high) => cumulative ? [low, high] : [low - 43200, high + 43200] }, y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.06] } },
    axes: [
      { stroke: ink, font, grid: { show: false }, ticks: { show: false }, space: 64, size: 34,
        values: (_, at) => at.map((second) => new Date(second * 1000).toISOString().slice(5, 10)) },
      { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 52,
        values: (_, at) => at.map((value) => number.format(value)) },
    ],
    // The highest layer first, the ones before it over it.
    series: [{}, ...series.map((one, at) => ({ one, at })).reverse().map(({ one }) => cumulative
      ? { stroke: colour(one.tone), fill: colour(one.tone), width: 1, points: { show: false } }
      : { stroke: colour(one.tone), fill: colour(one.tone), width: 0, points: { show: false },
          paths: uPlot.paths.bars({ size: [0.72, 42], radius: 0.12 }) })],
    hooks: {
      setCursor: [(plot) => {
        const at = plot.cursor.idx;
        tip.hidden = at === null || at === undefined || plot.cursor.left < 0;
        if (tip.hidden) return;
        const lines = series.map((one, layer) => [one.name, layers[layer][at], one.tone]).filter((one) => one[1]);
        const total = layers.reduce((sum, layer) => sum + layer[at], 0);
        tip.replaceChildren(paragraph("total", days[at], total), ...lines.reverse().map((one) => paragraph("", one[0], one[1], one[2])));
        const left = plot.cursor.left + plot.bbox.left / devicePixelRatio;
        const room = place.clientWidth - left - tip.offsetWidth - 24;
        tip.style.left = `${room > 0 ? left + 14 : left - tip.offsetWidth - 14}px`;
        tip.style.top = "8px";
      }],
    },
  };
  place.replaceChildren();
  const plot = new uPlot(options, [times, ...tops.slice().reverse()], place);
  place.append(tip);
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 272 })).observe(place);
}

function paragraph(kind, name, value, tone) {
  const line = document.createElement("p");
  line.className = kind;
  const label = document.createElement("span");
  if (tone) {
    const swatch = document.createElement("i");
    swatch.className = `swatch ${tone}`;
    label.append(swatch);
  }
  label.append(name);
  const amount = document.createElement("span");
  amount.textContent = value.toLocaleString("en", { maximumFractionDigits: 6 });
  line.append(label, amount);
  return line;
}

const menu = document.querySelector("#menu");
if (menu && matchMedia("(max-width: 56rem)").matches) menu.open = false;
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
for (const button of document.querySelectorAll("form[data-auto] .apply")) button.hidden = true;
for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;
document.addEventListener("htmx:after:swap", () => {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
});
watchNames();
drawCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
