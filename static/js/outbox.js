// Answers on their way to the server, in order, kept in localStorage until the server has said that it has them.
// Each carries an idempotency key, so sending one twice keeps it once.
export class Outbox {
  // send(item) resolves when the server has the item, throws {final: true} when it refused it for good.
  constructor(name, send, onChange) {
    this.name = `likestep-outbox-${name}`;
    this.send = send;
    this.onChange = onChange;
    this.items = JSON.parse(localStorage.getItem(this.name) || "[]");
    this.busy = false;
    this.offline = false;
    window.addEventListener("online", () => this.flush());
    setInterval(() => this.flush(), 5000);
    this.flush();
  }

  add(item) {
    this.items.push(item);
    this.keep();
    this.flush();
  }

  has(group) {
    return this.items.some((item) => item.group === group);
  }

  // The server must have everything before an undo makes sense.
  async settled() {
    while (this.items.length) {
      await this.flush();
      if (this.offline) return false;
      await new Promise((done) => setTimeout(done, 50));
    }
    return true;
  }

  keep() {
    localStorage.setItem(this.name, JSON.stringify(this.items));
    this.onChange(this);
  }

  async flush() {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.items.length) {
        try {
          await this.send(this.items[0]);
        } catch (error) {
          if (!error.final) {
            this.offline = true;
            this.onChange(this);
            return;
          }
        }
        this.offline = false;
        this.items.shift();
        this.keep();
      }
    } finally {
      this.busy = false;
    }
  }
}
