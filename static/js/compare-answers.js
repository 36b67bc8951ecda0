// What people say of a blind test's images, as an order of their places: a list of lists, the best first, those that are the
// same together; what is left out comes after the others. `show(images)` puts their addresses on the page, nothing without any,
// and `press(event)` says whether the key meant something. Each calls `send(order)` once for what it shows.
import { fill, gettext } from "./i18n.js";
import { meanings } from "./keyboard.js";

export class Duel {
  constructor(stage, send) {
    this.stage = stage;
    this.tie = document.getElementById("tie");
    this.buttons = { ArrowLeft: [[0]], ArrowRight: [[1]], ArrowDown: [[0, 1]] };
    this.send = send;
    for (const [at, button] of stage.querySelectorAll("button").entries()) button.addEventListener("click", () => send([[at]]));
    this.tie.addEventListener("click", () => send([[0, 1]]));
  }

  show(images) {
    this.stage.hidden = this.tie.hidden = !images;
    for (const [at, img] of this.stage.querySelectorAll("img").entries()) if (images) img.src = images[at];
  }

  press(event) {
    const order = this.buttons[event.key];
    if (order) this.send(order);
    return Boolean(order);
  }
}

// State: `tiers`, what is placed so far, and `joins`, whether the next one goes to the last one's place.
export class Ordering {
  constructor(stage, send) {
    this.stage = stage;
    this.send = send;
    this.tiles = [...stage.querySelectorAll("button")];
    this.actions = document.getElementById("order-actions");
    [this.equal, this.back, this.same, this.done] = ["equal", "back", "all-same", "done"].map((id) => document.getElementById(id));
    for (const [at, tile] of this.tiles.entries()) tile.addEventListener("click", () => this.toggle(at));
    this.equal.addEventListener("click", () => this.join());
    this.back.addEventListener("click", () => this.takeBack());
    this.same.addEventListener("click", () => this.send([this.tiles.map((_, at) => at)]));
    this.done.addEventListener("click", () => this.submit());
  }

  show(images) {
    this.stage.hidden = this.actions.hidden = !images;
    for (const [at, tile] of this.tiles.entries()) if (images) tile.querySelector("img").src = images[at];
    this.tiers = [];
    this.draw(false);
  }

  draw(joins) {
    this.joins = joins && this.tiers.length > 0;
    for (const [at, tile] of this.tiles.entries()) {
      const place = this.tiers.findIndex((tier) => tier.includes(at)) + 1;
      tile.setAttribute("aria-pressed", String(place > 0));
      tile.classList.toggle("placed", place > 0);
      tile.querySelector("b").textContent = place ? fill(gettext("place %(n)s"), { n: place }) : "";
    }
    this.equal.disabled = this.back.disabled = this.done.disabled = !this.tiers.length;
    this.equal.setAttribute("aria-pressed", String(this.joins));
  }

  toggle(at) {
    const placed = this.tiers.some((tier) => tier.includes(at));
    if (placed) this.tiers = this.tiers.map((tier) => tier.filter((other) => other !== at)).filter((tier) => tier.length);
    else if (this.joins) this.tiers.at(-1).push(at);
    else this.tiers.push([at]);
    this.draw(false);
  }

  join() {
    this.draw(!this.joins);
  }

  takeBack() {
    const last = this.tiers.at(-1)?.at(-1);
    if (last !== undefined) this.toggle(last);
  }

  submit() {
    if (this.tiers.length) this.send(this.tiers);
  }

  press(event) {
    const action = event.target.closest("#order-actions button, a, summary");
    if (event.key === "Enter") {
      if (!action) this.submit(); // on an image it submits, Space places the image
      return !action;
    }
    for (const key of meanings(event)) {
      const tile = this.tiles[Number(key) - 1];
      if (/^[1-9]$/.test(key) && tile) this.toggle(Number(key) - 1);
      else if (key === "0") this.same.click();
      else if (key === "=") this.join();
      else if (key === "Backspace") this.takeBack();
      else continue;
      return true;
    }
    return false;
  }
}
