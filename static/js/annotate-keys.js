// The form of keys: a press fills the field, and a key that is used twice is said at once. The server checks again.
const form = document.getElementById("keys-form");
const fields = [...form.querySelectorAll("[data-key]")];
// These keep their usual meaning, so that a field can be left and the form sent with the keyboard.
const FREE = new Set(["Tab", "Escape", "Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "Dead", "Process", "Unidentified"]);

function check() {
  for (const field of fields) {
    const twice = field.value && fields.some((other) => other !== field && other.value.toLowerCase() === field.value.toLowerCase());
    const error = document.getElementById(`error-${field.name}`);
    error.textContent = twice ? form.dataset.clash : "";
    error.hidden = !twice;
    field.setAttribute("aria-invalid", String(twice));
    if (twice) field.setAttribute("aria-describedby", error.id);
    else field.removeAttribute("aria-describedby");
  }
}

for (const field of fields) {
  field.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || FREE.has(event.key) || event.key.startsWith("Arrow")) return;
    event.preventDefault();
    field.value = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    check();
  });
  field.addEventListener("focus", () => field.select());
  field.addEventListener("input", check);
}
