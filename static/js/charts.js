// Line charts of a round's metrics, redrawn whenever the page is refreshed.
const place = document.getElementById("charts");
const CHARTS = [
  ["Validation", ["validation_reward", "validation_geneval", "validation_word"]],
  ["Surrogate", ["margin", "distance", "active", "group_weight"]],
  ["Losses", ["student", "fake", "surrogate"]],
];
const COLORS = ["#3350c9", "#c2570c", "#11713f", "#8b3fb0"];
const drawn = new Map();

async function redraw() {
  const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { steps } = await answer.json();
  for (const [title, names] of CHARTS) {
    const present = names.filter((name) => steps.some((s) => name in s));
    if (!present.length) continue;
    const datasets = present.map((name, i) => ({
      label: name.replaceAll("_", " "),
      data: steps.filter((s) => name in s).map((s) => ({ x: s.step, y: s[name] })),
      borderColor: COLORS[i],
      backgroundColor: COLORS[i],
      pointRadius: steps.length > 60 ? 0 : 2,
      borderWidth: 2,
    }));
    if (drawn.has(title)) {
      const chart = drawn.get(title);
      chart.data.datasets = datasets;
      chart.update("none");
      continue;
    }
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title} by step`);
    figure.append(caption, canvas);
    place.append(figure);
    const options = { animation: false, parsing: false, scales: { x: { type: "linear" } } };
    drawn.set(title, new window.Chart(canvas, { type: "line", data: { datasets }, options }));
  }
}

document.addEventListener("likestep:refresh", redraw);
redraw();
