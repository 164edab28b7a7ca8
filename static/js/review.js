// Keys of the review: each presses the button or follows the link that carries it.

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (!/^[a-z1-9]$/.test(key)) return;
  const target = document.querySelector(`[data-key="${key}"]:not(:disabled)`);
  if (target === null) return;
  event.preventDefault();
  target.click();
});
