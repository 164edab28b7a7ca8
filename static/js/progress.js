// Make the polling of a request's page cheap and quiet: conditional requests, a slower pace in a background tab, and
// one line for screen readers when the headline changes; and say so when the connection is lost. The polling itself is
// htmx's.

const PACE_HIDDEN = 30_000; // ms between two questions while the page is in the background
const LOST = "The connection is lost. The work goes on; this page catches up by itself.";
const spoken = document.getElementById("spoken");
const connection = document.getElementById("connection");

let etag = "";
let asked = 0;
let headline = "";

const isPoll = (event) => event.target.id === "progress";
// Words that are being typed into the part that is replaced would be lost.
const isTyping = () => document.activeElement?.closest("#progress form .input") != null;

document.body.addEventListener("htmx:configRequest", (event) => {
  if (!isPoll(event)) return;
  if (isTyping() || (document.hidden && Date.now() - asked < PACE_HIDDEN)) {
    event.preventDefault();
    return;
  }
  asked = Date.now();
  // The page may not be stored, so that the browser cannot ask conditionally by itself.
  if (etag) event.detail.headers["If-None-Match"] = etag;
});

// Comes with every answer, also with one that changes nothing.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (!isPoll(event)) return;
  etag = event.detail.xhr.getResponseHeader("ETag") ?? "";
  say(event.detail.xhr.status < 500 ? "" : LOST);
});
document.body.addEventListener("htmx:sendError", (event) => isPoll(event) && say(LOST));
document.body.addEventListener("htmx:timeout", (event) => isPoll(event) && say(LOST));

function say(line) {
  if (connection.textContent !== line) connection.textContent = line;
}

document.body.addEventListener("htmx:afterSwap", show);
show();

/** Tell the tab and screen readers what has changed; the percentage only shows. */
function show() {
  const part = document.getElementById("progress");
  if (part === null) return;
  document.title = `${part.dataset.title} · Picaisso`;
  const now = part.querySelector("h1")?.textContent ?? "";
  if (headline && now !== headline) spoken.textContent = now;
  headline = now;
}
