// What a key means on any layout.
const SIGNS = {
  Comma: ",", Period: ".", Slash: "/", Semicolon: ";", Quote: "'", BracketLeft: "[", BracketRight: "]",
  Minus: "-", Equal: "=", Backquote: "`", Backslash: "\\",
};
const LATIN = /^[ -~]$/;
const UNTOLD = new Set(["Process", "Unidentified", "Dead"]); // an input method has it, or waits for the next key

// The letter, digit or sign at the key's place on a layout with Latin letters; "" for others.
function place({ code, shiftKey }) {
  if (code === "Slash" && shiftKey) return "?";
  return /^(?:Key|Digit|Numpad)([A-Z\d])$/.exec(code)?.[1].toLowerCase() ?? SIGNS[code] ?? "";
}

// What the key may mean, what it writes first. Its place counts where it writes no Latin letter or sign (Cyrillic, Hebrew, an
// input method), and in the digit row always: French layouts write digits with Shift.
export function meanings(event) {
  const single = event.key.length === 1;
  const found = [single ? event.key.toLowerCase() : event.key];
  const there = place(event);
  if (there && (single ? /\d/.test(there) || !LATIN.test(event.key) : UNTOLD.has(event.key))) found.push(there);
  return found;
}
