// Line charts of a round's metrics, redrawn whenever the page is refreshed or goes light or dark.
import { fill, gettext } from "./i18n.js";

const place = document.getElementById("charts");
const CHARTS = [
  [gettext("Validation"), ["validation_reward", "validation_geneval", "validation_word"]],
  [gettext("Opinions"), ["opinion", "second_recognition", "accuracy_held_out", "accuracy_trained"]],
  [gettext("Measures, parent = 1"), ["second_contrast", "second_sharpness", "second_colourfulness", "second_diversity"]],
  [gettext("Surrogate"), ["margin", "distance", "active", "group_weight"]],
  [gettext("Losses"), ["student", "fake", "surrogate"]],
];
// Short enough that a legend is one line, also on a phone.
const SHORT = {
  validation_reward: gettext("reward"),
  validation_geneval: "GenEval",
  validation_word: gettext("words"),
  opinion: gettext("surrogate"),
  second_recognition: gettext("base"),
  accuracy_held_out: gettext("held-out labels"),
  accuracy_trained: gettext("labels"),
  second_contrast: gettext("contrast"),
  second_sharpness: gettext("sharpness"),
  second_colourfulness: gettext("colour"),
  second_diversity: gettext("variety"),
};
const drawn = new Map();

// Colours of the style sheet, which knows light and dark.
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function dress() {
  window.Chart.defaults.color = colour("--muted");
  window.Chart.defaults.borderColor = colour("--line");
  const lines = [1, 2, 3, 4].map((n) => colour(`--chart-${n}`));
  for (const chart of drawn.values()) {
    chart.data.datasets.forEach((set, i) => Object.assign(set, { borderColor: lines[i], backgroundColor: lines[i] }));
    for (const scale of Object.values(chart.options.scales)) {
      scale.ticks = { ...scale.ticks, color: window.Chart.defaults.color };
      scale.grid = { ...scale.grid, color: window.Chart.defaults.borderColor };
    }
    chart.options.plugins.legend.labels.color = window.Chart.defaults.color;
    chart.update("none");
  }
}

async function redraw() {
  const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { steps } = await answer.json();
  for (const [title, names] of CHARTS) {
    const present = names.filter((name) => steps.some((s) => name in s));
    if (!present.length) continue;
    const datasets = present.map((name) => ({
      label: SHORT[name] ?? name.replaceAll("_", " "),
      data: steps.filter((s) => name in s).map((s) => ({ x: s.step, y: s[name] })),
      pointRadius: steps.length > 60 ? 0 : 2,
      borderWidth: 2,
    }));
    if (drawn.has(title)) {
      drawn.get(title).data.datasets = datasets;
      continue;
    }
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", fill(gettext("%(title)s by step"), { title }));
    const plot = document.createElement("div"); // whose size the canvas takes, however the page changes around it
    plot.className = "plot";
    plot.append(canvas);
    figure.append(caption, plot);
    place.append(figure);
    const options = { animation: false, parsing: false, maintainAspectRatio: false, scales: { x: { type: "linear", ticks: { precision: 0 } }, y: {} }, plugins: { legend: { position: "bottom", labels: { usePointStyle: true, pointStyle: "line", boxWidth: 18, padding: 8 } } } };
    drawn.set(title, new window.Chart(canvas, { type: "line", data: { datasets }, options }));
  }
  dress();
}

document.addEventListener("likestep:refresh", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
redraw();
