// Seconds spent on the group on screen, pauses and other tabs left out.
export class Clock {
  constructor() {
    this.start();
  }

  start() {
    this.spent = 0;
    this.since = performance.now();
  }

  stop() {
    if (this.since !== null) this.spent += performance.now() - this.since;
    this.since = null;
  }

  go() {
    this.since ??= performance.now();
  }

  seconds() {
    return (this.spent + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  }
}
