// A form that was sent when the session had ended is filled again after log-in: what was written waits in this tab until then,
// for the same person and page. Passwords and files do not.
const KEPT = "likestep-form";
const LEFT_OUT = new Set(["hidden", "password", "file", "submit", "button", "reset", "fieldset", "output"]);
const { person } = document.body.dataset; // "": nobody has logged in
const here = () => location.pathname + location.search;

function written(form) {
  return [...form.elements].map((field) => {
    if (!field.name || LEFT_OUT.has(field.type)) return null;
    const chosen = field.options && [...field.options].map((option) => option.selected);
    return { name: field.name, value: field.value, checked: field.checked, chosen };
  });
}

function fill(form, fields) {
  for (const [place, kept] of fields.entries()) {
    const field = form.elements[place];
    if (!kept || field?.name !== kept.name || LEFT_OUT.has(field.type)) continue;
    if (kept.chosen) {
      [...field.options].forEach((option, n) => (option.selected = kept.chosen[n] ?? false));
    } else if (field.type === "checkbox" || field.type === "radio") {
      field.checked = kept.checked;
    } else {
      field.value = kept.value;
    }
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
if (!person) {
  if (kept) sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, ended: true }));
} else {
  sessionStorage.removeItem(KEPT);
  const form = document.forms[kept?.number];
  if (kept?.ended && kept.person === person && kept.page === here() && form) {
    fill(form, kept.fields);
    document.getElementById("refilled").hidden = false;
  }
}

document.addEventListener("submit", ({ target: form }) => {
  if (!person || form.method !== "post") return;
  if (form.classList.contains("account")) {
    sessionStorage.removeItem(KEPT); // whoever logs out is through
    return;
  }
  const number = [...document.forms].indexOf(form);
  sessionStorage.setItem(KEPT, JSON.stringify({ person, page: here(), number, fields: written(form) }));
});
