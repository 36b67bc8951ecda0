import "./refill.js";

// On every page. The server learns this browser's time zone, so that "today" begins at the person's own midnight.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const secure = location.protocol === "https:" ? "; Secure" : "";
if (zone) document.cookie = `time_zone=${encodeURIComponent(zone)}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;

// The menus of the navigation: a click elsewhere, Escape, or leaving by Tab closes an open one. They open without this.
const menus = [...document.querySelectorAll(".topbar details")];

function close(menu, focus) {
  if (!menu.open) return;
  menu.open = false;
  if (focus) menu.querySelector("summary").focus();
}

document.addEventListener("click", (event) => menus.forEach((menu) => menu.contains(event.target) || close(menu)));
for (const menu of menus) {
  menu.addEventListener("focusout", (event) => event.relatedTarget && !menu.contains(event.relatedTarget) && close(menu));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.stopPropagation();
    close(menu, true);
  });
}
