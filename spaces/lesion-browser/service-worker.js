// Makes the page work offline, and says with every file what a plain host of files does not: that nothing may be sent
// anywhere, and that the page shares its process with no other, which permits threads.

const PAGE = null; // filled in when the page is written
const KEPT = `lesion-page-${PAGE.version}`;

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(KEPT);
    await cache.addAll(PAGE.files.map((file) => new Request(file, { cache: "reload" })));
    await self.skipWaiting();
  })());
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith("lesion-page-") && name !== KEPT) await caches.delete(name);
    }
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  event.respondWith(respond(event.request));
});

async function respond(request) {
  if (new URL(request.url).origin !== self.location.origin || request.method !== "GET") return Response.error();
  const cache = await caches.open(KEPT);
  const found = (await cache.match(request, { ignoreSearch: true })) ?? (await fetch(request));
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(PAGE.headers)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
