// Scores by version: a line with its 95% interval as a band behind it.
import { fill, gettext } from "./i18n.js";

const place = document.getElementById("charts");
const style = getComputedStyle(document.documentElement);
const [ink, line, accent] = ["--ink", "--line", "--accent"].map((name) => style.getPropertyValue(name).trim());
const TITLES = {
  likes: gettext("Likes by people"),
  reward: gettext("Reward on validation prompts"),
  geneval: gettext("GenEval on validation prompts"),
  strict: gettext("GenEval, strict"),
  word: gettext("Words right"),
};

const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
const { versions } = answer.ok ? await answer.json() : { versions: [] };
for (const [name, title] of Object.entries(TITLES)) {
  const points = versions.filter((v) => name in v.scores).map((v) => ({ x: v.version, ...v.scores[name] }));
  if (!points.length) continue;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const last = points.at(-1);
  const [value, low, high] = [last.value, last.low, last.high].map((number) => number.toFixed(2));
  const text = fill(gettext("%(title)s: version %(n)s %(value)s, between %(low)s and %(high)s"), { title, n: last.x, value, low, high });
  canvas.setAttribute("aria-label", text);
  figure.append(caption, canvas);
  place.append(figure);
  const edge = (key) => ({ data: points.map((p) => ({ x: p.x, y: p[key] })), borderWidth: 1, borderColor: accent, pointRadius: points.length > 60 ? 0 : 2, borderDash: [3, 3] });
  const datasets = [
    { label: gettext("95 of 100 from"), ...edge("low") },
    { label: gettext("95 of 100 to"), ...edge("high"), fill: "-1", backgroundColor: `${accent}22` },
    { label: title, data: points.map((p) => ({ x: p.x, y: p.value })), borderWidth: 2, borderColor: accent, backgroundColor: accent, pointRadius: points.length > 60 ? 0 : 4 },
  ];
  const one = points.length === 1;
  const scales = {
    x: { type: "linear", min: one ? last.x - 1 : undefined, max: one ? last.x + 1 : undefined, ticks: { color: ink, precision: 0, maxTicksLimit: 8 }, grid: { color: line }, title: { display: true, text: gettext("version"), color: ink } },
    y: { min: 0, max: 1, ticks: { color: ink, maxTicksLimit: 6 }, grid: { color: line } },
  };
  const options = { animation: false, parsing: false, scales, plugins: { legend: { display: false } } };
  new window.Chart(canvas, { type: "line", data: { datasets }, options });
}
