// Keep the shared result for times without a network.

const script = document.querySelector("script[data-worker]");
if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register(script.dataset.worker).catch(() => {}); // without it the page works as before
}
