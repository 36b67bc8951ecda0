// Live pages. A notice on the socket only says that something changed: the page then asks the server again, so what is
// shown is always what the database holds, after a reload, a lost socket or a missed notice alike.
import { gettext } from "./i18n.js";

const place = document.getElementById("live");
const changing = document.querySelector(place.dataset.refresh);
const QUIET_MS = 400; // many notices become one request
let wait = 1000;
let timer = null;

function refresh() {
  if (timer !== null) return;
  timer = setTimeout(() => {
    timer = null;
    window.htmx.trigger(changing, "refresh");
    document.dispatchEvent(new Event("likestep:refresh"));
  }, QUIET_MS);
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}${place.dataset.socket}`);
  socket.onopen = () => {
    wait = 1000;
    place.dataset.live = "true";
    place.textContent = gettext("live");
    refresh();
  };
  socket.onmessage = refresh;
  socket.onclose = () => {
    place.dataset.live = "false";
    place.textContent = gettext("reconnecting…");
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 30000);
  };
}

connect();
// Without a socket the page still moves.
setInterval(() => place.dataset.live !== "true" && refresh(), 10000);
