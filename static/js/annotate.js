// The rating page. State:
//   queue    groups from the server, the first is on screen, the others are loaded and decoded ahead
//   marks    position → true (like) | false (dislike) of the group on screen
//   drafts   group → marks, of groups that an undo brought back and that are not on screen
//   given    what this page sent, newest last, for undo: {group, key, marks}
//   outbox   answers the server has not confirmed yet (outbox.js)
import { Dialogs } from "./annotate-dialogs.js";
import { Clock } from "./annotate-clock.js";
import { Grid } from "./annotate-grid.js";
import { fill as put, gettext, ngettext } from "./i18n.js";
import { meanings } from "./keyboard.js";
import { Outbox } from "./outbox.js";
import { Prompt } from "./prompt.js";

const root = document.getElementById("annotate");
const $ = (id) => document.getElementById(id);
const { keys, widths, renew, reasons } = JSON.parse($("page-data").textContent);
const csrf = root.querySelector("[name=csrfmiddlewaretoken]").value;
const LOOK_AGAIN_MS = 3000;
const AHEAD = 3;
const MOST_GIVEN = 100;
const PATIENCE_MS = 20_000; // a request without an answer is given up, and sent again

let queue = [];
let marks = new Map();
let loading = false;
let wanted = ""; // asked for while a request was on the way: "more" or "renew"
let again = null;
let saves = 0; // answers that the server took
let decided = null; // the group of a refused answer that this person had decided on before, on another device
const drafts = new Map();
const whys = new Map(); // group → position → {reason, box} of dislikes
const given = [];
const seen = new Set();
const clock = new Clock();
const prompt = new Prompt($("prompt"));
const command = new Map(Object.entries(keys).filter(([, key]) => key).map(([name, key]) => [key, name]));

async function request(path, body) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const options = { signal, headers: { "X-CSRFToken": csrf, Accept: "application/json" } };
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
  const advice =
    answer.status === 403
      ? gettext("The server did not take it (%(status)s). Reload the page; your answers are kept.")
      : gettext("The server did not take it (%(status)s). Log in again or reload the page; your answers are kept.");
  const error = new Error(data?.error || put(advice, { status: answer.status }));
  error.answered = true;
  error.away = answer.status >= 500;
  error.decided = data?.decided;
  error.final = data !== null && [400, 404, 409].includes(answer.status);
  throw error;
}

const outbox = new Outbox(
  root.dataset.person,
  async (item) => {
    const path = item.kind === "undo" ? "undo/" : `groups/${item.group}/${item.kind}/`;
    try {
      const done = await request(root.dataset.base + path, item.body);
      saves += 1;
      if (done.today) count(done.today);
      // Only now does the server know that this one is through and that another may come.
      if (queue.length < AHEAD) setTimeout(fill);
    } catch (error) {
      if (error.answered) say(error.message);
      if (error.final) refused(item, error);
      throw error;
    }
  },
  tell,
);

// What the server did not take cannot be taken back; what it had before can.
function refused(item, error) {
  const at = given.findIndex(({ key }) => key === item.body.key);
  if (at >= 0) given.splice(at, 1);
  if (!error.decided) return;
  say("");
  offer(item.group);
}

function offer(group) {
  decided = group;
  $("decided").hidden = !group;
}

// Where the answers are: on the server, on the way, or waiting here for the line.
function tell(box) {
  const waiting = box.items.length;
  const status = $("status");
  status.dataset.waiting = waiting;
  status.dataset.stuck = box.stuck && waiting > 0;
  status.textContent = box.stuck && waiting
    ? put(gettext("not saved yet, %(n)s waiting"), { n: waiting })
    : waiting ? gettext("saving…") : gettext("saved");
  const off = !navigator.onLine || (box.stuck && box.away && waiting > 0);
  $("offline").hidden = !off;
  $("offline").textContent = off
    ? put(
        ngettext(
          "The server cannot be reached. You can go on: %(n)s answer is kept in this browser and is sent when the line is back.",
          "The server cannot be reached. You can go on: %(n)s answers are kept in this browser and are sent when the line is back.",
          waiting,
        ),
        { n: waiting },
      )
    : "";
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function count({ groups, images }) {
  const texts = [
    put(ngettext("%(n)s group", "%(n)s groups", groups), { n: groups }),
    put(ngettext("%(n)s image", "%(n)s images", images), { n: images }),
  ];
  $("counter").textContent = put(gettext("Today: %(groups)s, %(images)s"), { groups: texts[0], images: texts[1] });
}

const grid = new Grid($("grid"), $("stage"), widths, { toggle, zoom: (position) => dialogs.zoom(position) });
const dialogs = new Dialogs({
  group: () => queue[0],
  mark: (position) => marks.get(position),
  decide: (position, liked) => {
    marks.set(position, liked);
    paint();
  },
  why: (position) => whyOf(queue[0]).get(position),
  explain: (position, why) => {
    whyOf(queue[0]).set(position, why);
    paint();
  },
  address: (image) => image.url,
  focus: () => grid.buttons[0]?.focus({ preventScroll: true }),
  skip: (body) => leave("skip", body),
  flag: (body) => leave("flag", body),
  pause: () => clock.stop(),
  resume: () => {
    clock.go();
    fill(true);
  },
});

// Ask the server for groups; with `renew` also drop those it has given to others meanwhile.
async function fill(renew = false) {
  if (loading) {
    wanted = renew || wanted === "renew" ? "renew" : "more";
    return;
  }
  loading = true;
  wanted = "";
  const asked = saves;
  try {
    const data = await request(root.dataset.next);
    if (!outbox.items.length && saves === asked) count(data.today); // else it may be of before the last answer
    if (data.waiting) $("empty").textContent = data.waiting;
    if (data.go && !queue.length && !outbox.items.length) location.assign(data.go); // it says what comes first, or was the last
    for (const group of data.groups) {
      if (outbox.has(group.group) || seen.has(group.group) || queue.some((g) => g.group === group.group)) continue;
      queue.push(group);
      grid.preload(group);
    }
    if (renew && !outbox.items.length) drop((group) => !data.held.includes(group.group));
  } catch (error) {
    if (error.answered) say(error.message);
  } finally {
    loading = false;
  }
  if (queue.length && !grid.group) show();
  if (wanted) {
    fill(wanted === "renew");
  } else if (!queue.length) {
    empty();
    clearTimeout(again);
    again = setTimeout(fill, LOOK_AGAIN_MS);
  }
}

function drop(gone) {
  const [shown] = queue;
  queue = queue.filter((group) => !gone(group));
  if (shown && shown !== queue[0]) show();
}

function empty() {
  grid.clear();
  showInput(null);
  $("grid").removeAttribute("data-group");
  prompt.show(gettext("Nothing to rate yet"));
  $("empty").hidden = false;
}

// The input image in place of each image of the group, where it has one.
function compare(on) {
  const shown = on && Boolean(queue[0]?.input);
  grid.compare(shown);
  $("compare").setAttribute("aria-pressed", String(shown));
  return shown;
}

function showInput(group) {
  $("input-bar").hidden = !group?.input;
  if (group?.input) $("input-image").src = group.input;
  compare(false);
}

function show() {
  const group = queue[0];
  if (!group) {
    empty();
    fill();
    return;
  }
  if (!outbox.stuck) say("");
  $("empty").hidden = true;
  prompt.show(group.prompt);
  showInput(group);
  marks = drafts.get(group.group) ?? new Map();
  drafts.delete(group.group);
  grid.show(group, (i) => keyOf(`image_${i + 1}`));
  paint();
  grid.buttons[0].focus({ preventScroll: true });
  grid.forget(queue);
  clock.start();
}

function keyOf(name) {
  return (keys[name] ?? "").toUpperCase();
}

function whyOf({ group }) {
  if (!whys.has(group)) whys.set(group, new Map());
  return whys.get(group);
}

function paint() {
  grid.paint(marks, whyOf(queue[0]));
}

function toggle(position) {
  const liked = !(marks.get(position) ?? false);
  marks.delete(position); // the last of the map is what was marked last
  marks.set(position, liked);
  paint();
}

function all(value) {
  if (!queue.length) return;
  for (const image of queue[0].images) marks.set(image.position, value(image.position));
  paint();
}

// Not crypto.randomUUID: browsers have that on HTTPS and localhost only.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// Give the answer to the outbox and show the next group.
function leave(kind, body) {
  const [group] = queue;
  if (!group) return;
  performance.mark("likestep-answer");
  const key = newKey();
  if (!post({ group: group.group, kind, body: { ...body, key } })) return;
  given.push({ group, key, marks });
  if (given.length > MOST_GIVEN) whys.delete(given.shift().group.group);
  queue.shift();
  seen.add(group.group);
  show();
  measure();
}

function post(item) {
  try {
    outbox.add(item);
    return true;
  } catch (error) {
    const text = gettext("This browser cannot keep the answer (%(error)s). Allow storage for this site and submit again.");
    say(put(text, { error: error.message }));
    return false;
  }
}

// A lost network must not lose the page: the service worker keeps the last one. It misses the very first, so that is asked for again.
async function keepPage() {
  if (!navigator.serviceWorker) return; // neither HTTPS nor this machine
  const missed = !navigator.serviceWorker.controller;
  try {
    await navigator.serviceWorker.register("/service-worker.js");
    if (!missed) return;
    await new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
    await fetch(location.pathname);
    fill();
  } catch {
    // The page works all the same, as long as it is open.
  }
}

// From the answer to the next group on screen, images decoded: `performance.getEntriesByName("likestep-next")`.
async function measure() {
  if (!grid.group) return;
  await Promise.all([...$("grid").querySelectorAll("img")].map((picture) => picture.decode().catch(() => {})));
  requestAnimationFrame(() => performance.measure("likestep-next", "likestep-answer"));
}

function submit() {
  if (!queue.length) return;
  const images = queue[0].images;
  const missing = images.map((image) => image.position).filter((position) => !marks.has(position));
  if (missing.length) {
    paint();
    grid.missing(missing);
    const text = ngettext(
      "%(n)s of %(all)s images is undecided. Like or dislike it, or skip the group.",
      "%(n)s of %(all)s images are undecided. Like or dislike each one, or skip the group.",
      missing.length,
    );
    say(put(text, { n: missing.length, all: images.length }));
    return;
  }
  const why = [...whyOf(queue[0])].filter(([position, about]) => marks.get(position) === false && (about.reason || about.box));
  leave("submit", { labels: Object.fromEntries(marks), seconds: clock.seconds(), why: Object.fromEntries(why) });
}

// Back to the group before, with its answer. What this page sent is taken back through the outbox, so that works
// without a line too; after a reload the server is asked.
async function undo() {
  const last = given.pop();
  if (last) {
    if (post({ group: last.group.group, kind: "undo", body: { key: last.key } })) bring(last.group, last.marks);
    return;
  }
  if (!(await outbox.settled())) {
    say(gettext("Some answers are not saved yet. Undo works again when they are."));
    return;
  }
  await takeBack({});
}

// Have the server take an answer back, and show its group with it.
async function takeBack(body) {
  try {
    const data = await request(`${root.dataset.base}undo/`, body);
    if (!data.group) {
      say(gettext("There is nothing to undo."));
      return;
    }
    whys.set(data.group.group, byPosition(data.why));
    bring(data.group, byPosition(data.labels));
    saves += 1;
    count(data.today);
  } catch (error) {
    say(error.answered ? error.message : gettext("The server cannot be reached. Undo works again when it can."));
  }
}

function byPosition(values) {
  return new Map(Object.entries(values ?? {}).map(([position, value]) => [Number(position), value]));
}

function bring(group, answer) {
  if (queue.length) drafts.set(queue[0].group, marks);
  drafts.set(group.group, answer);
  seen.delete(group.group);
  queue = [group, ...queue.filter((other) => other.group !== group.group)];
  grid.preload(group);
  show();
}

const COMMANDS = {
  submit,
  undo,
  like_all: () => all(() => true),
  dislike_all: () => all(() => false),
  invert: () => all((position) => !(marks.get(position) ?? true)),
  skip: () => queue.length && dialogs.open("skip"),
  flag: () => queue.length && dialogs.flag(grid.focused()),
  zoom: () => queue.length && dialogs.zoom(grid.focused() ?? queue[0].images[0].position),
  why: explainDislike,
  compare: () => compare(true),
  guide: () => dialogs.guide(),
  pause: () => dialogs.open("pause"),
  help: () => dialogs.open("help"),
};

// Of the disliked image that has the focus, or else was marked last.
function explainDislike() {
  const disliked = [...marks].filter(([, liked]) => liked === false).map(([position]) => position);
  if (!reasons.length || !disliked.length) return;
  const focused = grid.focused();
  dialogs.zoom(disliked.includes(focused) ? focused : disliked.at(-1), true);
}

function run(name) {
  if (name.startsWith("image_")) {
    const image = queue[0]?.images[Number(name.slice(6)) - 1];
    if (image) toggle(image.position);
    return Boolean(image);
  }
  COMMANDS[name]();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialogs.showing) return;
  if (event.target.closest("input, select, textarea") || prompt.takes(event)) return;
  if (grid.move(event.key)) {
    event.preventDefault();
    return;
  }
  if (event.repeat) return;
  if (!command.size) return; // this person has switched single keys off
  const name = meanings(event).map((key) => (key === "?" ? "help" : command.get(key))).find(Boolean);
  if (!name) return;
  // Enter on an ordinary button or link presses it; on an image it submits, Space switches the image.
  const chosen = event.target.closest("button, summary, a");
  if (event.key === "Enter" && chosen && !chosen.classList.contains("tile-image")) return;
  if (run(name)) event.preventDefault();
});

document.addEventListener("keyup", (event) => meanings(event).some((key) => command.get(key) === "compare") && compare(false));
window.addEventListener("blur", () => compare(false));
$("compare").addEventListener("click", () => compare($("compare").getAttribute("aria-pressed") !== "true"));
for (const button of root.querySelectorAll("[data-command]")) {
  const name = button.dataset.command;
  const key = name === "help" ? "?" : keys[name];
  if (key) {
    button.setAttribute("aria-keyshortcuts", key);
    button.append(Object.assign(document.createElement("kbd"), { textContent: key.toUpperCase(), ariaHidden: "true" }));
  }
  button.addEventListener("click", () => run(name));
}
$("decided-change").addEventListener("click", () => {
  const group = decided;
  offer(null);
  takeBack({ group });
});
$("decided-leave").addEventListener("click", () => offer(null));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clock.stop();
  } else if (dialogs.showing !== "pause") {
    clock.go();
    fill(true); // another device may have gone on meanwhile
  }
});
setInterval(() => document.hidden || dialogs.showing === "pause" || fill(true), renew * 1000);
window.addEventListener("online", () => fill());
// Answers that only this browser has: closing it now may be a mistake.
window.addEventListener("beforeunload", (event) => outbox.stuck && outbox.items.length && event.preventDefault());
// Another tab of this person answered a group that waits here.
window.addEventListener("storage", () => drop((group) => outbox.has(group.group)));
tell(outbox);
fill();
keepPage();
