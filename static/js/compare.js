// The blind test. State: `waiting` pairs that this person holds, the first of them on screen, and `unsent` votes, which
// are sent in order and tried again until the server has them; a vote that is sent twice counts once.
import { Duel, Ordering } from "./compare-answers.js";
import { fill, gettext } from "./i18n.js";
import { Prompt } from "./prompt.js";

const root = document.getElementById("compare");
const prompt = new Prompt(document.getElementById("prompt"));
const [status, stage, empty, over, message] = ["status", "pair", "empty", "over", "message"].map((id) => document.getElementById(id));
const answers = stage.classList.contains("duel") ? new Duel(stage, send) : new Ordering(stage, send);
const token = root.querySelector("[name=csrfmiddlewaretoken]").value;
const AGAIN_MS = 3000;
const waiting = [];
const unsent = [];
const voted = new Set();
let shownAt = 0;
let asking = false;
let sending = false;
let ended = false;
let count = 0;

function show() {
  const pair = waiting[0];
  empty.hidden = Boolean(pair) || ended;
  over.hidden = Boolean(pair) || !ended;
  prompt.show(pair ? pair.prompt : ended ? gettext("The test is over") : gettext("Waiting for images"));
  answers.show(pair?.images);
  if (!pair) return;
  for (const picture of stage.querySelectorAll("img")) [picture.width, picture.height] = pair.size;
  stage.dataset.pair = pair.pair;
  shownAt = performance.now();
}

async function ask() {
  if (asking || ended) return;
  asking = true;
  try {
    const answer = await fetch(root.dataset.next, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error();
    const { open, pairs } = await answer.json();
    const held = new Set(waiting.map((p) => p.pair));
    const fresh = pairs.filter((p) => !held.has(p.pair) && !voted.has(p.pair));
    for (const pair of fresh) for (const image of pair.images) new Image().src = image;
    const blank = !waiting.length;
    waiting.push(...fresh);
    ended = !open;
    if (ended) waiting.length = 0;
    if (blank || ended) show();
    message.hidden = true;
  } catch {
    message.textContent = gettext("The server does not answer; trying again.");
    message.hidden = false;
  } finally {
    asking = false;
    if (!waiting.length && !ended) setTimeout(ask, AGAIN_MS);
  }
}

async function deliver() {
  if (sending) return;
  sending = true;
  while (unsent.length) {
    try {
      const headers = { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token };
      const answer = await fetch(root.dataset.vote, { method: "POST", headers, body: JSON.stringify(unsent[0]) });
      if (answer.status >= 500 || answer.status === 401) throw new Error();
      if (!answer.ok) {
        message.textContent = (await answer.json()).error;
        message.hidden = false;
      } else count += 1;
      unsent.shift();
      tell();
      if (waiting.length < 2) await ask();
    } catch {
      tell();
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
  sending = false;
}

function tell() {
  status.textContent = unsent.length ? fill(gettext("%(n)s not saved yet"), { n: unsent.length }) : fill(gettext("%(n)s saved"), { n: count });
  status.dataset.waiting = unsent.length;
}

function send(order) {
  const pair = waiting.shift();
  if (!pair) return;
  voted.add(pair.pair);
  unsent.push({ pair: pair.pair, order, seconds: (performance.now() - shownAt) / 1000 });
  show();
  tell();
  deliver();
}

document.addEventListener("keydown", (event) => {
  if (prompt.takes(event) || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !waiting.length) return;
  if (answers.press(event)) event.preventDefault();
});
window.addEventListener("beforeunload", (event) => unsent.length && event.preventDefault());
ask();
