// Answers on their way to the server, in order, kept in localStorage until the server has said that it has them.
// Each carries an idempotency key, so sending one twice, or from two tabs, keeps it once. Each is an entry of its own:
// tabs that shared one list would overwrite each other's answers.
const RETRY_MS = 5000;

export class Outbox {
  // send(item) resolves when the server has the item, throws {final: true} when it refused it for good, {away: false} when it
  // was there and did not take it now.
  constructor(name, send, onChange) {
    this.prefix = `likestep-outbox-${name}-`;
    this.send = send;
    this.onChange = onChange;
    this.busy = false;
    this.stuck = false; // the last try failed; it is tried again
    this.away = false; // and there was no server to tell why
    window.addEventListener("online", () => this.flush());
    window.addEventListener("offline", () => this.onChange(this));
    window.addEventListener("storage", (event) => {
      if (event.key?.startsWith(this.prefix)) this.onChange(this);
    });
    setInterval(() => this.flush(), RETRY_MS);
    setTimeout(() => this.flush());
  }

  keys() {
    return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).sort();
  }

  get items() {
    return this.keys()
      .map((key) => JSON.parse(localStorage.getItem(key)))
      .filter(Boolean);
  }

  add(item) {
    const time = String(Date.now()).padStart(15, "0");
    const order = String(Math.floor(performance.now() * 10)).padStart(12, "0");
    localStorage.setItem(`${this.prefix}${time}-${order}-${item.kind}-${item.body.key}`, JSON.stringify(item));
    this.onChange(this);
    this.flush();
  }

  // Whether an answer to the group is on its way; what was taken back again is not.
  has(group) {
    const last = this.items.findLast((item) => item.group === group);
    return last !== undefined && last.kind !== "undo";
  }

  // True once the server has everything, false when it cannot be reached.
  async settled() {
    while (this.keys().length) {
      await this.flush();
      if (this.stuck) return false;
      await new Promise((done) => setTimeout(done, 50));
    }
    return true;
  }

  async flush() {
    if (this.busy) return;
    this.busy = true;
    try {
      for (let key = this.keys()[0]; key; key = this.keys()[0]) {
        const text = localStorage.getItem(key);
        if (text === null) continue; // another tab was told that it is saved
        try {
          await this.send(JSON.parse(text));
        } catch (error) {
          if (!error.final) {
            this.stuck = true;
            this.away = error.away ?? true;
            this.onChange(this);
            return;
          }
          // Refused for good: out of the queue, but not thrown away.
          localStorage.setItem(key.replace("likestep-outbox-", "likestep-refused-"), text);
        }
        this.stuck = false;
        localStorage.removeItem(key);
        this.onChange(this);
      }
    } finally {
      this.busy = false;
    }
  }
}
