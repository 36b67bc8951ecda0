// The images of a group: as large as all of them fit at once, with a like or dislike below each.
import { fill, gettext } from "./i18n.js";

export const GAP = 6;
const CAPTION = 30; // below each image, in CSS pixels, its border included
const SMALLEST = 56;

// How many columns make `count` tiles largest in width × height: {columns, tile} with the tile's width in pixels.
// `aspect` is an image's width over its height.
export function fit(count, width, height, aspect = 1) {
  let best = { columns: 1, tile: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const byWidth = (width - GAP * (columns - 1)) / columns;
    const byHeight = ((height - GAP * (rows - 1)) / rows - CAPTION) * aspect;
    const tile = Math.floor(Math.min(byWidth, byHeight));
    if (tile > best.tile) best = { columns, tile };
  }
  // Too low a window: the smallest tile, in columns that fit, and the stage scrolls.
  if (best.tile < SMALLEST) return { columns: Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP))), tile: SMALLEST };
  return best;
}

// Draws groups into `grid`, which lies in `stage`. on.toggle(position) and on.zoom(position) are called on clicks.
export class Grid {
  constructor(grid, stage, widths, on) {
    Object.assign(this, { grid, stage, widths, on, group: null, columns: 1 });
    this.loaded = new Map(); // address → an <img> that is being or has been decoded
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  get buttons() {
    return [...this.grid.querySelectorAll(".tile-image")];
  }

  layout(group) {
    const [first] = group.images;
    const style = getComputedStyle(this.stage);
    const width = this.stage.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = this.stage.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    return fit(group.images.length, width, height, first.width / first.height);
  }

  // The smallest file that is sharp at the size it has on this screen.
  address(image, tile) {
    const width = this.widths.find((w) => w >= tile * devicePixelRatio);
    return width && width < image.width ? `${image.url}?w=${width}` : image.url;
  }

  // Fetch and decode a group's images before it is shown.
  preload(group) {
    const { tile } = this.layout(group);
    return Promise.all(
      group.images.map((image) => {
        const url = this.address(image, tile);
        if (!this.loaded.has(url)) {
          const picture = new Image();
          picture.alt = "";
          picture.src = url;
          picture.draggable = false;
          this.loaded.set(url, picture);
          // A failed image is asked for again when it is shown.
          picture.decode().catch(() => this.loaded.delete(url));
        }
        return this.loaded.get(url).decode().catch(() => {});
      }),
    );
  }

  show(group, label) {
    this.group = group;
    const { columns, tile } = this.layout(group);
    this.size(columns, tile);
    this.grid.dataset.group = group.group;
    this.grid.replaceChildren(...group.images.map((image, i) => this.tile(image, i, tile, label(i))));
  }

  // Show the input image in place of every image, or not.
  compare(on) {
    this.grid.classList.toggle("comparing", on);
  }

  clear() {
    this.group = null;
    this.grid.replaceChildren();
  }

  // Pictures of groups that are not on the way any more.
  forget(groups) {
    const keep = new Set(groups.flatMap((group) => group.images.map((image) => image.url)));
    for (const url of this.loaded.keys()) if (!keep.has(url.split("?")[0])) this.loaded.delete(url);
  }

  resize() {
    if (!this.group) return;
    const { columns, tile } = this.layout(this.group);
    this.size(columns, tile);
  }

  size(columns, tile) {
    this.columns = columns;
    this.grid.style.setProperty("--columns", columns);
    this.grid.style.setProperty("--tile", `${tile}px`);
    this.grid.classList.toggle("dense", tile < 140);
  }

  tile(image, index, width, key) {
    const place = document.createElement("div");
    place.className = "tile-place";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile-image";
    button.dataset.position = image.position;
    const url = this.address(image, width);
    let picture = this.loaded.get(url);
    if (!picture) {
      picture = new Image();
      picture.alt = "";
      picture.draggable = false;
      picture.src = url;
    }
    picture.width = image.width;
    picture.height = image.height;
    const mark = document.createElement("span");
    mark.className = "mark";
    const hint = document.createElement("kbd");
    hint.textContent = key;
    hint.hidden = !key;
    const word = document.createElement("span");
    word.className = "word";
    mark.append(hint, word);
    button.append(picture, mark);
    if (this.group.input) {
      const input = new Image();
      Object.assign(input, { alt: "", src: this.group.input, className: "input-over", draggable: false });
      button.append(input);
    }
    button.addEventListener("click", () => this.on.toggle(image.position));
    const zoom = document.createElement("button");
    zoom.type = "button";
    zoom.className = "zoom-button";
    zoom.tabIndex = -1; // the key for it works on the focused image
    zoom.setAttribute("aria-label", fill(gettext("Look closer at image %(n)s"), { n: index + 1 }));
    zoom.textContent = "⤢";
    zoom.addEventListener("click", () => this.on.zoom(image.position));
    place.append(button, zoom);
    return place;
  }

  // `whys` has {reason} by position.
  paint(marks, whys) {
    this.buttons.forEach((button, i) => {
      const mark = marks.get(Number(button.dataset.position));
      button.classList.toggle("liked", mark === true);
      button.classList.toggle("disliked", mark === false);
      button.classList.remove("missing");
      const why = (mark === false && whys.get(Number(button.dataset.position))?.reason) || "";
      const [sign, said] = mark === true ? ["✓", gettext("like")] : mark === false ? ["✗", gettext("dislike")] : ["", gettext("undecided")];
      const word = why ? `${said}, ${why}` : said;
      button.querySelector(".word").replaceChildren(sign, sign ? " " : "", Object.assign(document.createElement("span"), { className: "text", dir: "auto", textContent: why || said }));
      button.setAttribute("aria-label", fill(gettext("Image %(n)s: %(mark)s"), { n: i + 1, mark: word }));
      button.setAttribute("aria-pressed", mark === undefined ? "mixed" : String(mark));
    });
  }

  missing(positions) {
    const buttons = this.buttons.filter((button) => positions.includes(Number(button.dataset.position)));
    buttons.forEach((button) => button.classList.add("missing"));
    buttons[0]?.focus();
  }

  // The position of the image that has the focus; null elsewhere.
  focused() {
    const button = document.activeElement?.closest(".tile-image");
    return button ? Number(button.dataset.position) : null;
  }

  // Arrow keys go from image to image; returns whether the key was one of them.
  move(key) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns }[key];
    if (!step || !this.group) return false;
    const buttons = this.buttons;
    const now = buttons.indexOf(document.activeElement?.closest(".tile-image"));
    const next = now < 0 ? 0 : now + step;
    buttons[next]?.focus();
    return true;
  }
}
