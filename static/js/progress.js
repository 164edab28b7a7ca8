// Make the polling of a request's page cheap and quiet: conditional requests, a slower pace in a background tab, and
// one line for screen readers when the headline changes. The polling itself is htmx's.

const PACE_HIDDEN = 30_000; // ms between two questions while the page is in the background
const spoken = document.getElementById("spoken");

let etag = "";
let asked = 0;
let headline = "";

const isPoll = (event) => event.target.id === "progress";

document.body.addEventListener("htmx:configRequest", (event) => {
  if (!isPoll(event)) return;
  if (document.hidden && Date.now() - asked < PACE_HIDDEN) {
    event.preventDefault();
    return;
  }
  asked = Date.now();
  // The page may not be stored, so that the browser cannot ask conditionally by itself.
  if (etag) event.detail.headers["If-None-Match"] = etag;
});

document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (isPoll(event)) etag = event.detail.xhr.getResponseHeader("ETag") ?? "";
});

document.body.addEventListener("htmx:afterSwap", announce);
announce();

/** Tell the tab and screen readers what has changed; the percentage only shows. */
function announce() {
  const part = document.getElementById("progress");
  if (part === null) return;
  document.title = `${part.dataset.title} · Picaisso`;
  const now = part.querySelector("h1")?.textContent ?? "";
  if (headline && now !== headline) spoken.textContent = now;
  headline = now;
}
