// What opens over the rating page: a closer look, skip, flag, keys, pause; and the guidelines beside it.
// `page` has: group(), mark(position), decide(position, liked), address(image), focus(), skip(body),
// flag(body), pause(), resume(), and what annotate-why.js asks for.
import { Why } from "./annotate-why.js";
import { fill, gettext } from "./i18n.js";
import { meanings } from "./keyboard.js";

const $ = (id) => document.getElementById(id);
const GUIDE = "likestep-guide-open";

export class Dialogs {
  constructor(page) {
    this.page = page;
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.querySelectorAll("[data-close]").forEach((button) => button.addEventListener("click", () => this.close(dialog)));
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.id !== "pause-dialog" && this.close(dialog));
      dialog.addEventListener("cancel", (event) => {
        event.preventDefault();
        this.close(dialog);
      });
      dialog.addEventListener("close", () => this.closed(dialog)); // by other ways, such as a phone's back gesture
    }
    for (const kind of ["skip", "flag"]) {
      $(`${kind}-form`).addEventListener("submit", (event) => this.send(kind, event));
      $(`${kind}-dialog`).addEventListener("keydown", (event) => this.choose(event));
    }
    $("zoom-before").addEventListener("click", () => this.step(-1));
    $("zoom-after").addEventListener("click", () => this.step(1));
    $("zoom-like").addEventListener("click", () => this.decide(true));
    $("zoom-dislike").addEventListener("click", () => this.decide(false));
    this.why = new Why(page);
    $("zoom-dialog").addEventListener("keydown", (event) => {
      const did = this.why.key(event);
      if (did) {
        event.preventDefault();
        event.stopPropagation(); // the dialog may be closed by now, and the key would go on to the images
        if (did === "chosen" && this.brief) this.close($("zoom-dialog"));
        return;
      }
      const action = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), ArrowUp: () => this.decide(true), ArrowDown: () => this.decide(false) }[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    });
    $("guide-close").addEventListener("click", () => this.guide(false));
    this.guide(this.wanted(), false);
  }

  // The name of the open dialog, or null.
  get showing() {
    return document.querySelector("dialog[open]")?.id.replace("-dialog", "") ?? null;
  }

  open(name) {
    if (name === "pause") this.page.pause();
    $(`${name}-form`)?.reset();
    this.show($(`${name}-dialog`));
  }

  show(dialog) {
    dialog.showModal();
    this.opened = dialog;
  }

  // The browser tells of a closed dialog a few milliseconds late; a key pressed until then must not meet the old focus.
  close(dialog) {
    dialog.close();
    this.closed(dialog);
  }

  closed(dialog) {
    if (this.opened !== dialog || dialog.open) return;
    this.opened = null;
    if (dialog.id === "pause-dialog") this.page.resume();
    // Where the focus came from may be gone: then to the images.
    if (document.activeElement === document.body) this.page.focus();
    if (dialog.id === "zoom-dialog") document.querySelector(`.tile-image[data-position="${this.position}"]`)?.focus();
  }

  // A digit picks a reason where no text is being written.
  choose(event) {
    if (event.target.matches("input:not([type=radio]), select")) return;
    const choice = event.currentTarget.querySelectorAll("input[type=radio]")[Number(meanings(event).at(-1)) - 1];
    if (!choice) return;
    event.preventDefault();
    choice.checked = true;
    choice.focus();
  }

  send(kind, event) {
    event.preventDefault();
    this.close($(`${kind}-dialog`)); // first, or the next group could not take the focus
    const values = Object.fromEntries(new FormData($(`${kind}-form`)));
    if (kind === "flag") values.position = values.position === "" ? null : Number(values.position);
    this.page[kind](values);
  }

  flag(position) {
    this.open("flag");
    const choice = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
    const images = this.page.group().images.map((image, i) => choice(image.position, fill(gettext("Image %(n)s"), { n: i + 1 })));
    $("flag-position").replaceChildren(choice("", gettext("The whole group")), ...images);
    $("flag-position").value = position ?? "";
  }

  // A closer look at an image; `brief`: it ends when a reason is chosen.
  zoom(position, brief = false) {
    this.position = position;
    this.brief = brief;
    this.draw();
    if (this.showing !== "zoom") this.show($("zoom-dialog"));
  }

  draw() {
    const images = this.page.group().images;
    const at = images.findIndex((image) => image.position === this.position);
    const mark = this.page.mark(this.position);
    const word = mark === true ? gettext("like") : mark === false ? gettext("dislike") : gettext("undecided");
    const title = fill(gettext("Image %(n)s of %(all)s: %(mark)s"), { n: at + 1, all: images.length, mark: word });
    $("zoom-title").textContent = title;
    $("zoom-image").src = this.page.address(images[at]);
    $("zoom-image").alt = fill(gettext("Image %(n)s"), { n: at + 1 });
    this.why.show(this.position, mark === false);
    $("zoom-dialog").classList.toggle("liked", mark === true);
    $("zoom-dialog").classList.toggle("disliked", mark === false);
  }

  step(by) {
    const images = this.page.group().images;
    const at = images.findIndex((image) => image.position === this.position);
    this.zoom(images[(at + by + images.length) % images.length].position);
  }

  decide(liked) {
    this.page.decide(this.position, liked);
    this.draw();
  }

  // The guidelines are open at first on wide screens, then as the person left them.
  wanted() {
    try {
      const kept = localStorage.getItem(GUIDE);
      if (kept !== null) return kept === "1";
    } catch {
      // Storage is off: as on the first visit.
    }
    return matchMedia("(min-width: 70rem)").matches;
  }

  guide(open = $("guide").hidden, keep = true) {
    $("guide").hidden = !open;
    $("guide-open").setAttribute("aria-expanded", String(open));
    if (!keep) return;
    try {
      localStorage.setItem(GUIDE, open ? "1" : "0");
    } catch {
      // Not worth a message.
    }
    if (open) $("guide-close").focus();
    else $("guide-open").focus();
  }
}
