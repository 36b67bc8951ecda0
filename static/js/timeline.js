// Charts over time. `data-url` answers with {points: [{at, …}]}; `data-kind` says which lines are drawn of them. One point
// is drawn as a dot in the middle of a day; a thousand are drawn as the means of at most MOST stretches of equal length.
import { fill, gettext } from "./i18n.js";

const place = document.getElementById("charts");
const style = getComputedStyle(document.documentElement);
const color = (i) => style.getPropertyValue(["--accent", "--like", "--dislike", "--muted"][i]).trim(); // light or dark, as now
const DAY = 86400000;
const MOST = 100;
const KINDS = {
  agreement: [[gettext("Agreement (Krippendorff's alpha)"), [["alpha", "alpha"]], [-0.2, 1]]],
  dashboard: [
    [gettext("Labels a day"), [["labels", gettext("labels")], ["groups", gettext("groups")]], [0, null]],
    [gettext("Like rate"), [["like_rate", gettext("likes of people")]], [0, 1]],
    [gettext("Groups with signal"), [["signal_rate", gettext("share of labelled groups")]], [0, 1]],
    [gettext("Agreement (Krippendorff's alpha)"), [["alpha", "alpha"]], [-0.2, 1]],
  ],
};
const drawn = new Map();

function dateText(value, span) {
  const text = new Date(value).toISOString();
  return span < 2 * DAY ? text.slice(5, 16).replace("T", " ") : text.slice(0, 10);
}

function chart(title, datasets, [low, high]) {
  const times = datasets.flatMap((d) => d.data.map((p) => p.x));
  const span = Math.max(...times) - Math.min(...times);
  const ink = getComputedStyle(document.body).color;
  const line = style.getPropertyValue("--line");
  const x = {
    type: "linear",
    min: Math.min(...times) - (span ? span / 50 : DAY / 2),
    max: Math.max(...times) + (span ? span / 50 : DAY / 2),
    ticks: { color: ink, maxTicksLimit: 5, maxRotation: 0, callback: (value) => dateText(value, span) },
    grid: { color: line },
  };
  const y = { min: low, max: high ?? undefined, beginAtZero: true, ticks: { color: ink, maxTicksLimit: 6 }, grid: { color: line } };
  const options = {
    animation: false,
    parsing: false,
    clip: false,
    scales: { x, y },
    plugins: {
      legend: { display: datasets.length > 1, labels: { color: ink } },
      tooltip: { callbacks: { title: (items) => dateText(items[0].parsed.x, 0) } },
    },
  };
  if (drawn.has(title)) {
    const old = drawn.get(title);
    old.data.datasets = datasets;
    old.options = options;
    old.update("none");
    return;
  }
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const last = datasets.map((d) => `${d.label} ${d.data.at(-1).y.toFixed(2)}`).join(", ");
  canvas.setAttribute("aria-label", fill(gettext("%(title)s over time, last: %(last)s"), { title, last }));
  figure.append(caption, canvas);
  place.append(figure);
  drawn.set(title, new window.Chart(canvas, { type: "line", data: { datasets }, options }));
}

function thinned(points) {
  if (points.length <= MOST) return points;
  const [first, last] = [points[0].x, points.at(-1).x];
  const bins = new Map();
  for (const point of points) {
    const bin = Math.min(MOST - 1, Math.floor(((point.x - first) / (last - first)) * MOST));
    bins.set(bin, [...(bins.get(bin) ?? []), point]);
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  return [...bins.values()].map((bin) => ({ x: mean(bin.map((p) => p.x)), y: mean(bin.map((p) => p.y)) }));
}

async function redraw() {
  const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { points } = await answer.json();
  for (const [title, lines, range] of KINDS[place.dataset.kind]) {
    const datasets = lines
      .map(([name, label], i) => ({
        label,
        data: thinned(points.filter((p) => (p[name] ?? null) !== null).map((p) => ({ x: Date.parse(p.at), y: p[name] }))),
        borderColor: color(i),
        backgroundColor: color(i),
        borderWidth: 2,
      }))
      .filter((d) => d.data.length)
      .map((d) => ({ ...d, pointRadius: d.data.length > 60 ? 0 : d.data.length === 1 ? 5 : 3 }));
    if (datasets.length) chart(title, datasets, range);
  }
}

document.addEventListener("likestep:refresh", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
redraw();
