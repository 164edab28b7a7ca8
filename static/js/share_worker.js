// Keeps the pages of one shared result, what they load, and the model once it was used, for times without a network.
// With a network the network's answer counts.

const CACHE = "shared-1";
const HOME = new URL("./", self.location.href);
const PAGES = [HOME.href, new URL("try/", HOME).href];

self.addEventListener("install", (event) => {
  event.waitUntil(keepAll().then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

/** Keep both pages with the style sheets, scripts and pictures that they name. */
async function keepAll() {
  const cache = await caches.open(CACHE);
  for (const page of PAGES) {
    const response = await fetch(page);
    if (!response.ok) continue;
    const text = await response.clone().text();
    await cache.put(page, response);
    const named = [...text.matchAll(/(?:src|href|data-script|data-runtime|data-module|data-wasm)="(\/static\/[^"]+)"/g)];
    await Promise.allSettled(named.map((match) => cache.add(match[1])));
  }
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request, response.clone()).catch(() => {}); // a full disk
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
}
