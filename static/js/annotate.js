// The rating page. State:
//   queue    groups from the server, the first is on screen, the others are loaded ahead
//   marks    position → true (like) | false (dislike) of the group on screen
//   outbox   answers the server has not confirmed yet (outbox.js)
import { Outbox } from "./outbox.js";

const root = document.getElementById("annotate");
const $ = (id) => document.getElementById(id);
const KEYS = [..."123456789qwerty", ..."zxcvbnm,."];
const LOOK_AGAIN_MS = 3000;
const csrf = root.querySelector("[name=csrfmiddlewaretoken]").value;

let queue = [];
let marks = new Map();
let shownAt = 0;
let seen = new Set();
let loading = false;

async function request(path, body) {
  const options = { headers: { "X-CSRFToken": csrf, Accept: "application/json" } };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  const answer = await fetch(path, options);
  const text = await answer.text();
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    // A log-in or error page. Only JSON says that something was kept.
  }
  if (answer.ok && data && !answer.redirected) return data;
  const advice = answer.status === 403 ? "Reload the page" : "Log in again or reload the page";
  const error = new Error(data?.error || `The server did not take it (${answer.status}). ${advice}; your answers are kept.`);
  error.answered = true;
  error.final = data !== null && [400, 404, 409].includes(answer.status);
  throw error;
}

const outbox = new Outbox(
  root.dataset.person,
  async (item) => {
    try {
      const done = await request(`${root.dataset.base}groups/${item.group}/${item.kind}/`, item.body);
      if (done.session) count(done.session);
    } catch (error) {
      if (error.answered) say(error.message);
      throw error;
    }
  },
  (box) => {
    const waiting = box.items.length;
    $("status").textContent = box.stuck ? `not saved yet, ${waiting} waiting` : waiting ? "saving…" : "saved";
    $("status").dataset.waiting = waiting;
  },
);

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function count(session) {
  $("counter").textContent = `This session: ${session.groups} groups, ${session.images} images`;
}

function preload(group) {
  for (const image of group.images) new Image().src = image.url;
}

async function fill() {
  if (loading) return;
  loading = true;
  try {
    const data = await request(root.dataset.next);
    if (!outbox.items.length) count(data.session);
    for (const group of data.groups) {
      if (outbox.has(group.group) || seen.has(group.group) || queue.some((g) => g.group === group.group)) continue;
      queue.push(group);
      preload(group);
    }
  } catch (error) {
    if (error.final) say(error.message);
  } finally {
    loading = false;
  }
  if (queue.length && !$("grid").children.length) show();
  if (!queue.length) {
    empty();
    setTimeout(fill, LOOK_AGAIN_MS);
  }
}

function empty() {
  $("grid").replaceChildren();
  $("prompt").textContent = "Nothing to rate yet";
  $("empty").hidden = false;
}

function show(previous = {}) {
  const group = queue[0];
  if (!group) {
    empty();
    fill();
    return;
  }
  if (!outbox.stuck) say("");
  $("empty").hidden = true;
  $("prompt").textContent = group.prompt;
  marks = new Map(Object.entries(previous).map(([k, v]) => [Number(k), v]));
  const size = group.images.length;
  $("grid").className = `grid n${size}${size > 12 ? " many" : ""}`;
  $("grid").dataset.group = group.group;
  $("grid").dataset.version = group.version;
  $("grid").replaceChildren(...group.images.map(tile));
  paint();
  $("grid").firstElementChild.focus({ preventScroll: true });
  shownAt = performance.now();
}

function tile(image, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tile-image";
  button.dataset.position = image.position;
  const picture = document.createElement("img");
  picture.src = image.url;
  picture.alt = "";
  const mark = document.createElement("span");
  mark.className = "mark";
  const key = document.createElement("span");
  key.textContent = (KEYS[index] || "").toUpperCase();
  const word = document.createElement("span");
  word.className = "word";
  mark.append(key, word);
  button.append(picture, mark);
  button.addEventListener("click", () => toggle(image.position));
  return button;
}

function toggle(position) {
  marks.set(position, !(marks.get(position) ?? false));
  paint();
}

function paint() {
  for (const button of $("grid").children) {
    const mark = marks.get(Number(button.dataset.position));
    button.classList.toggle("liked", mark === true);
    button.classList.toggle("disliked", mark === false);
    button.classList.remove("missing");
    const word = mark === true ? "👍 like" : mark === false ? "👎 dislike" : "undecided";
    button.querySelector(".word").textContent = word;
    const key = button.querySelector(".mark span").textContent;
    button.setAttribute("aria-label", `Image ${key}: ${mark === undefined ? "undecided" : mark ? "liked" : "disliked"}`);
    button.setAttribute("aria-pressed", mark === undefined ? "mixed" : String(mark));
  }
}

function all(value) {
  for (const image of queue[0]?.images ?? []) marks.set(image.position, value(image.position));
  paint();
}

// Not crypto.randomUUID: browsers have that on HTTPS and localhost only.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function leave(kind, body) {
  const group = queue[0];
  try {
    outbox.add({ group: group.group, kind, body: { ...body, key: newKey() } });
  } catch (error) {
    say(`This browser cannot keep the answer (${error.message}). Allow storage for this site and submit again.`);
    return;
  }
  queue.shift();
  seen.add(group.group);
  show();
  if (queue.length < 3) fill();
}

function submit() {
  if (!queue.length) return;
  const missing = queue[0].images.filter((image) => !marks.has(image.position));
  if (missing.length) {
    const buttons = missing.map((image) => $("grid").querySelector(`[data-position="${image.position}"]`));
    paint();
    buttons.forEach((button) => button.classList.add("missing"));
    buttons[0].focus();
    say(`${missing.length} of ${queue[0].images.length} images are undecided. Like or dislike each one, or skip the group.`);
    return;
  }
  leave("submit", { labels: Object.fromEntries(marks), seconds: (performance.now() - shownAt) / 1000 });
}

function skip() {
  if (queue.length) leave("skip", { reason: "" });
}

async function undo() {
  if (!(await outbox.settled())) {
    say("Some answers are not saved yet. Undo works again when they are.");
    return;
  }
  try {
    const data = await request(`${root.dataset.base}undo/`, {});
    if (!data.group) {
      say("There is nothing to undo.");
      return;
    }
    seen.delete(data.group.group);
    queue = [data.group, ...queue.filter((g) => g.group !== data.group.group)];
    show(data.labels);
    if (data.session) count(data.session);
  } catch (error) {
    say(error.message);
  }
}

const COMMANDS = {
  l: () => all(() => true),
  d: () => all(() => false),
  i: () => all((position) => !(marks.get(position) ?? true)),
  u: undo,
  backspace: undo,
  s: skip,
  enter: submit,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  const chosen = event.target.closest("button, summary, a");
  // Enter on an ordinary button presses it; on an image it submits, Space switches the image.
  if (key === "enter" && chosen && !chosen.classList.contains("tile-image")) return;
  const image = queue[0]?.images[KEYS.indexOf(key)];
  if (image) toggle(image.position);
  else if (COMMANDS[key]) COMMANDS[key]();
  else return;
  event.preventDefault();
});
$("submit").addEventListener("click", submit);
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("all-like").addEventListener("click", COMMANDS.l);
$("all-dislike").addEventListener("click", COMMANDS.d);
$("invert").addEventListener("click", COMMANDS.i);
fill();
