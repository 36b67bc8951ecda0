// A round's pairs: filtered, and one of them large with a slider from the old version to the new.
// The page changes its inside while a round runs, so everything is looked up when it happens.
const at = (id) => document.getElementById(id);
let shown = null;

const seen = () => [...document.querySelectorAll("#pairs > li")].filter((row) => !row.hidden);

function filter() {
  const { changed, tag } = at("pair-filter").elements;
  for (const row of document.querySelectorAll("#pairs > li")) {
    const other = tag && tag.value && row.dataset.tag !== tag.value;
    row.hidden = Boolean(other || (changed.checked && !("changed" in row.dataset)));
  }
  at("no-pairs").hidden = seen().length > 0;
}

function split(percent) {
  at("large-stack").style.setProperty("--old", `${100 - percent}%`);
}

function show(row) {
  shown = row;
  at("large-prompt").textContent = row.querySelector(".prompt").textContent;
  at("large-stack").replaceChildren(...["after", "before"].map((side) => row.querySelector(`[data-side=${side}]`).cloneNode(true)));
  const { width, height } = row.querySelector("svg").viewBox.baseVal;
  at("large-stack").style.setProperty("--ratio", width / height);
  at("large-old").textContent = at("pairs").dataset.old;
  at("large-new").textContent = at("pairs").dataset.new;
  const more = at("large-more");
  if (more) more.href = `${more.dataset.try}&prompt=${encodeURIComponent(at("large-prompt").textContent)}`;
  split(at("large-slider").value);
  if (!at("large").open) at("large").showModal();
}

function step(by) {
  const rows = seen();
  show(rows[(rows.indexOf(shown) + by + rows.length) % rows.length]);
}

const hold = (down) => split(down ? 0 : at("large-slider").value);

document.addEventListener("change", (event) => event.target.closest("#pair-filter") && filter());
document.addEventListener("submit", (event) => event.target.closest("#pair-filter") && event.preventDefault());
document.addEventListener("input", (event) => event.target.id === "large-slider" && split(event.target.value));
document.addEventListener("click", (event) => {
  const pair = event.target.closest(".pair");
  if (pair) show(pair.parentElement);
  else if (event.target.id === "large-previous") step(-1);
  else if (event.target.id === "large-next") step(1);
  else if (event.target.id === "large-close" || event.target.id === "large") at("large").close();
});
for (const [name, down] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]]) {
  document.addEventListener(name, (event) => (event.target.id === "large-hold" || !down) && at("large-stack") && hold(down));
}
for (const [name, down] of [["keydown", true], ["keyup", false]]) {
  document.addEventListener(name, (event) => {
    if (event.target.id === "large-hold" && event.key === " ") hold(down);
    else if (down && at("large")?.open && event.target.id !== "large-slider") {
      if (event.key === "ArrowRight") step(1);
      else if (event.key === "ArrowLeft") step(-1);
    }
  });
}
