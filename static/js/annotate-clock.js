// Seconds spent on the group on screen: pauses and other tabs are left out, and so is time in which nobody did anything.
const IDLE = 60_000; // milliseconds without a sign of somebody, after which they are not looking
const SIGNS = ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchstart"];

export class Clock {
  constructor() {
    for (const sign of SIGNS) document.addEventListener(sign, () => this.seen(), { passive: true, capture: true });
    this.start();
  }

  start() {
    this.spent = 0;
    this.since = performance.now();
  }

  stop() {
    this.spent += this.running();
    this.since = null;
  }

  go() {
    this.since ??= performance.now();
  }

  // Somebody is there: the time since the last sign counts, as far as it was not too long.
  seen() {
    if (this.since === null) return;
    this.spent += this.running();
    this.since = performance.now();
  }

  running() {
    return this.since === null ? 0 : Math.min(IDLE, performance.now() - this.since);
  }

  seconds() {
    return (this.spent + this.running()) / 1000;
  }
}
