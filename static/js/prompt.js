// The prompt above the images. One that is longer than its place can be reached and scrolled with the keyboard.
const LONG = 160; // characters, above which it is written smaller
const SCROLLING = new Set(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", " "]);

export class Prompt {
  constructor(element) {
    this.element = element;
    new ResizeObserver(() => this.fit()).observe(element);
  }

  show(text) {
    this.element.textContent = text;
    this.element.classList.toggle("long", text.length > LONG);
    this.element.scrollTop = 0;
    this.fit();
  }

  fit() {
    this.element.tabIndex = this.element.scrollHeight > this.element.clientHeight + 1 ? 0 : -1;
  }

  // Whether a key scrolls it, and so means nothing else.
  takes(event) {
    return event.target === this.element && SCROLLING.has(event.key);
  }
}
