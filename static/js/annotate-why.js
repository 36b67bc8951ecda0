// Why an image is disliked, in the closer look: a reason by a key or a click, and one box on the image by drawing it, or by
// keys. `page` has why(position) → {reason, box} or undefined, and explain(position, why).
import { meanings } from "./keyboard.js";

const SMALLEST = 0.02; // of the image: less is a click
const STEP = 0.02;
const FIRST = [0.35, 0.35, 0.3, 0.3];

export class Why {
  constructor(page) {
    this.page = page;
    this.place = document.getElementById("why");
    this.box = document.getElementById("zoom-box");
    if (!this.place) return; // the project asks for no reasons
    this.image = document.getElementById("zoom-image");
    this.image.draggable = false;
    this.buttons = [...this.place.querySelectorAll("[data-reason]")];
    this.buttons.forEach((button) => button.addEventListener("click", () => this.choose(button.dataset.reason)));
    document.getElementById("why-box").addEventListener("click", () => this.mark());
    this.image.addEventListener("pointerdown", (event) => this.draw(event));
  }

  get about() {
    return this.page.why(this.position) ?? { reason: "", box: null };
  }

  // Called for each image that is looked at, and for each change of its mark.
  show(position, disliked) {
    if (!this.place) return;
    const { activeElement } = document;
    this.position = position;
    this.place.hidden = !disliked;
    this.image.classList.toggle("drawn-on", disliked);
    const { reason, box } = this.about;
    this.buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.reason === reason)));
    document.getElementById("why-box").setAttribute("aria-pressed", String(Boolean(box)));
    this.box.hidden = !(disliked && box);
    // What had the focus may be gone: keys must not go to the page below.
    if (!disliked && (activeElement === this.box || this.place.contains(activeElement))) document.getElementById("zoom-like").focus();
    else if (this.box.hidden && activeElement === this.box) document.getElementById("why-box").focus();
    if (box) ["left", "top", "width", "height"].forEach((side, i) => this.box.style.setProperty(side, `${100 * box[i]}%`));
  }

  set(change) {
    this.page.explain(this.position, { ...this.about, ...change });
    this.show(this.position, true);
  }

  // The same reason again takes it away.
  choose(reason) {
    this.set({ reason: this.about.reason === reason ? "" : reason });
  }

  mark() {
    this.set({ box: this.about.box ? null : FIRST });
    if (!this.box.hidden) this.box.focus();
  }

  draw(event) {
    if (this.place.hidden) return;
    event.preventDefault();
    const frame = this.image.getBoundingClientRect();
    const at = (e) => [(e.clientX - frame.left) / frame.width, (e.clientY - frame.top) / frame.height].map((v) => Math.min(1, Math.max(0, v)));
    const [x, y] = at(event);
    const move = (e) => {
      const [u, v] = at(e);
      const box = [Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y)];
      if (box[2] >= SMALLEST && box[3] >= SMALLEST) this.set({ box });
    };
    this.image.setPointerCapture(event.pointerId);
    this.image.addEventListener("pointermove", move);
    this.image.addEventListener("lostpointercapture", () => this.image.removeEventListener("pointermove", move), { once: true });
  }

  // Whether the key was one of these: "chosen" for a reason.
  key(event) {
    if (!this.place || this.place.hidden || event.ctrlKey || event.metaKey || event.altKey) return false;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way && event.target === this.box) {
      this.nudge(way, event.shiftKey);
      return "moved";
    }
    const digit = meanings(event).find((meaning) => /^\d$/.test(meaning));
    const button = this.buttons[digit - 1];
    if (button) this.choose(button.dataset.reason);
    else if (digit === "0") this.mark();
    else return false;
    return button ? "chosen" : "marked";
  }

  nudge([x, y], resize) {
    let [left, top, width, height] = this.about.box;
    if (resize) {
      width = Math.min(1 - left, Math.max(STEP, width + STEP * x));
      height = Math.min(1 - top, Math.max(STEP, height + STEP * y));
    } else {
      left = Math.min(1 - width, Math.max(0, left + STEP * x));
      top = Math.min(1 - height, Math.max(0, top + STEP * y));
    }
    this.set({ box: [left, top, width, height] });
  }
}
