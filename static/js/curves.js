// Draws the curves of a fine-tuning with uPlot, which is only loaded once there is something to draw. The live part of
// the page is replaced while it polls; the drawings stay (hx-preserve) and take the new points.

const charts = new Map(); // element -> its chart
let points = null;
let library = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const flat = (value) => points.epochs.map(() => value);
const asPercent = (value) => `${Math.round(value * 100)} %`;

const KINDS = {
  accuracy: {
    lines: [["--c1", false], ["--soft", true]],
    values: () => [points.epochs, points.accuracy, flat(points.head_accuracy)], // flat: null without a head beside
    label: asPercent,
    steps: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
    range: (_, low) => [Math.max(0, Math.floor(low * 10 - 0.5) / 10), 1],
  },
  loss: {
    lines: [["--c1", false], ["--c2", false], ["--soft", true]],
    values: () => [points.epochs, points.val_loss, points.train_loss, flat(points.head_loss)],
    label: (value) => String(Number(value.toFixed(3))), // as exact as the steps of the axis
    range: (_, low, high) => [0, Math.max(0.1, high * 1.1)],
  },
};

function load(address) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
}

function axis(more) {
  return {
    stroke: () => colour("--soft"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
    ...more,
  };
}

function series([name, isDashed]) {
  return {
    stroke: () => colour(name),
    width: 2,
    dash: isDashed ? [5, 5] : undefined,
    points: { show: !isDashed, size: 6, fill: () => colour(name), stroke: () => colour(name) },
  };
}

function options(kind, element) {
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: () => [1, Math.max(2, points.planned)] },
      y: { range: kind.range },
    },
    series: [{}, ...kind.lines.map(series)],
    axes: [
      axis({ size: 28, incrs: [1, 2, 5, 10, 20], values: (_, ticks) => ticks.map(String) }),
      axis({ size: 46, space: 36, ...(kind.steps && { incrs: kind.steps }), values: (_, ticks) => ticks.map(kind.label) }),
    ],
  };
}

function draw(element) {
  if (!points || !element.clientWidth) return; // inside of what is folded
  const kind = KINDS[element.dataset.chart];
  const chart = charts.get(element);
  if (!chart) {
    charts.set(element, new uPlot(options(kind, element), kind.values(), element));
  } else {
    if (chart.width !== element.clientWidth) chart.setSize({ width: element.clientWidth, height: element.clientHeight });
    chart.setData(kind.values());
  }
}

// The table stays open while the page around it is replaced.
let isOpen = false;
document.addEventListener("toggle", ({ target }) => {
  if (target.matches("[data-curves] details")) isOpen = target.open;
}, true);

const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => draw(target)));

async function show() {
  const part = document.querySelector("[data-curves]");
  if (!part) return;
  part.querySelector("details").open = isOpen;
  points = JSON.parse(part.dataset.points);
  library ??= load(part.dataset.library);
  await library;
  for (const element of part.querySelectorAll("[data-chart]")) {
    if (charts.has(element)) draw(element);
    else sizes.observe(element); // draws at once
  }
  for (const element of charts.keys()) if (!element.isConnected) forget(element);
}

function forget(element) {
  sizes.unobserve(element);
  charts.get(element).destroy();
  charts.delete(element);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw()));
document.body.addEventListener("htmx:afterSwap", show);
show();
