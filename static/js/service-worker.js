// The rating page without a line. The server always comes first; only where it cannot be reached the last page and the last
// groups of this browser are shown, and the outbox keeps answers until it is back. Log-out, and an answer that says that the
// session has ended, drops them. Images are in the browser's own cache, as without this.
const PAGES = "likestep-pages";
const FILES = "likestep-files";
const RATING = /^\/p\/[^/]+\/(annotate|groups\/next)\/$/;
const STATIC = /^\/static\//;
const HASHED = /\.[0-9a-f]{12}\.\w+$/; // the content of such a name never changes
const MOST_FILES = 100;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (origin !== location.origin) return;
  if (request.method === "POST" && pathname === "/logout/") event.waitUntil(caches.delete(PAGES));
  if (request.method !== "GET") return;
  if (RATING.test(pathname)) event.respondWith(page(request, pathname));
  else if (STATIC.test(pathname)) event.respondWith(file(request, pathname));
});

async function known(place, name) {
  return (await caches.open(place)).match(name, { ignoreVary: true });
}

// The server's answer, or, where there is none, the one that was kept.
async function asked(request, place, name) {
  try {
    return await fetch(request);
  } catch (error) {
    const before = await known(place, name);
    if (before) return before;
    throw error;
  }
}

async function page(request, name) {
  const answer = await asked(request, PAGES, name);
  if (answer.ok && !answer.redirected) await (await caches.open(PAGES)).put(name, answer.clone());
  else if (answer.status < 500) await caches.delete(PAGES); // logged out, or no member any more
  return answer;
}

async function file(request, name) {
  const before = HASHED.test(name) && (await known(FILES, name));
  if (before) return before;
  const answer = await asked(request, FILES, name);
  if (answer.ok) {
    const files = await caches.open(FILES);
    await files.put(name, answer.clone());
    const all = await files.keys(); // the oldest come first
    await Promise.all(all.slice(0, Math.max(0, all.length - MOST_FILES)).map((old) => files.delete(old)));
  }
  return answer;
}
