// Texts in the page's language. The page carries them as data (template tag `script_texts`); what is missing stays English.
// `gettext` and `ngettext` are named so that `manage.py makemessages -d djangojs` finds the texts.
const catalog = JSON.parse(document.getElementById("script-texts")?.textContent ?? "{}");

export function gettext(text) {
  const found = catalog[text];
  return found === undefined ? text : Array.isArray(found) ? found[0] : found;
}

// Languages with two forms, one and many.
export function ngettext(one, many, n) {
  const found = catalog[one];
  if (Array.isArray(found)) return found[n === 1 ? 0 : 1];
  return n === 1 ? one : many;
}

// fill("%(n)s of %(all)s", {n: 1, all: 8})
export function fill(text, values) {
  return text.replace(/%\((\w+)\)s/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
