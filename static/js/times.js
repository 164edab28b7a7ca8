// Show times in the reader's own zone and language; without scripts they stay in UTC.
// `data-day` shows the day alone, `data-clock` the time of day.

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const clocks = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

function formatOf(element) {
  if ("day" in element.dataset) return days;
  return "clock" in element.dataset ? clocks : moments;
}

function show() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (!Number.isNaN(moment.getTime())) element.textContent = formatOf(element).format(moment);
  }
}

show();
document.addEventListener("htmx:afterSwap", show);
