// Classify on this device: the delivered network in ONNX Runtime Web, on one thread. Answers are those of the server, but
// for the training pictures most alike, which only the server has.

const OUTSIDE = 0.35; // brightness that the part outside the network's view keeps
const WEAKEST = 0.5; // share of colour where the map says nothing
const STRONGEST = 0.7; // and where it is at its height

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

/**
 * Load runtime and model, and return what classifies files with them.
 * @param settings the data of the page's switch
 * @param report is told the share of the model that has arrived
 */
export async function open(settings, report) {
  await addScript(settings.runtime);
  const ort = globalThis.ort;
  ort.env.wasm.numThreads = 1; // more would need headers that forbid pictures from elsewhere
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmPaths = { mjs: new URL(settings.module, location.href).href };
  ort.env.wasm.wasmBinary = await unpacked(await fetch(settings.wasm));
  const model = await load(settings.model, Number(settings.bytes), report);
  const session = await ort.InferenceSession.create(model);
  const facts = {
    classes: JSON.parse(settings.classes),
    reject: Number(settings.reject),
    sharpness: Number(settings.sharpness),
    resize: settings.resize ? Number(settings.resize) : null,
    crop: Number(settings.crop),
    colours: settings.colours.match(/../g).map((digits) => parseInt(digits, 16)),
    pixels: Number(settings.pixels),
    side: Number(settings.side),
  };
  return { classify: (file) => classify(ort, session, facts, file) };
}

function addScript(address) {
  if (globalThis.ort) return Promise.resolve();
  return new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = loaded;
    script.onerror = () => failed(new Error("the runtime could not be loaded"));
    document.head.append(script);
  });
}

/** Some servers say that a .gz file is packed, and browsers unpack it then. */
async function unpacked(response) {
  const bytes = await response.arrayBuffer();
  const [first, second] = new Uint8Array(bytes, 0, 2);
  if (first !== 0x1f || second !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function load(address, size, report) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the model could not be loaded (${response.status})`);
  const chunks = [];
  let arrived = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    arrived += value.length;
    report(Math.min(1, arrived / size));
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function classify(ort, session, facts, file) {
  let bitmap;
  try {
    // As the server does it: turned upright, and no colour profile applied.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return { problem: "This browser cannot read this file as a picture. Save it as JPEG." };
  }
  let scale = 1;
  while (bitmap.width * bitmap.height * scale * scale > facts.pixels) scale /= 2;
  const pixels = pixelsOf(bitmap, scale);
  const outputs = await session.run({ image: withoutAlpha(ort, pixels) });
  const small = pixelsOf(bitmap, Math.min(1, facts.side / Math.max(bitmap.width, bitmap.height)));
  bitmap.close();
  return shown(facts, outputs, small);
}

function pixelsOf(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return brush.getImageData(0, 0, canvas.width, canvas.height);
}

function withoutAlpha(ort, { data, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [height, width, 3]);
}

/** Probabilities raised to the power that suits a person's own pictures. */
function sharpened(shares, sharpness) {
  const powers = shares.map((share) => share ** sharpness);
  const whole = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / whole);
}

/** Return the answer as the server gives it. */
function shown(facts, outputs, picture) {
  const shares = sharpened(Array.from(outputs.probabilities.data), facts.sharpness);
  const predicted = shares.indexOf(Math.max(...shares));
  const label = facts.classes[predicted];
  const sure = percent(shares[predicted]);
  const novelty = outputs.novelty.data[0];
  const known = novelty <= facts.reject;
  const bars = facts.classes.map((name, number) => ({ name, share: shares[number], text: percent(shares[number]) }));
  bars.sort((one, other) => other.share - one.share);
  return {
    title: known ? label : "None of these",
    known,
    reason: known ? `The model is ${sure} sure.` : `Closest class: ${label} (${sure}).`,
    facts: `Classified on this device. Unfamiliarity ${novelty.toFixed(2)} (limit ${facts.reject.toFixed(2)}).`,
    picture: dataUrl(picture),
    map: dataUrl(coloured(facts, picture, evidence(outputs.cam, predicted))),
    bars,
    nearest: [],
    novelty,
  };
}

function dataUrl(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/jpeg", 0.82);
}

/* --- maps -------------------------------------------------------------------------------------------------- */

/** What spoke for a class rather than for the others: its map less the mean of all, scaled to 0..1. */
function evidence(cam, predicted) {
  const [, classes, rows, columns] = cam.dims;
  const cells = rows * columns;
  const values = new Float32Array(cells);
  for (let cell = 0; cell < cells; cell++) {
    let sum = 0;
    for (let number = 0; number < classes; number++) sum += cam.data[number * cells + cell];
    values[cell] = cam.data[predicted * cells + cell] - sum / classes;
  }
  const top = Math.max(...values);
  return { rows, columns, values: values.map((value) => (top > 0 ? Math.min(1, Math.max(0, value / top)) : 0)) };
}

/** Draw a map in colour over the grey picture; what the network did not see is dark. */
function coloured(facts, { data, width, height }, map) {
  const shorter = Math.min(width, height);
  let side = Math.max(width, height);
  if (facts.resize !== null) side = Math.max(1, Math.min(Math.round((shorter * facts.crop) / facts.resize), shorter));
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  const across = cubicWeights(map.columns, side);
  const down = cubicWeights(map.rows, side);
  const result = new ImageData(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    const line = y >= top && y < top + side ? blended(map, down[y - top]) : null;
    for (let x = 0; x < width; x++, at += 4) {
      const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      const isSeen = line !== null && x >= left && x < left + side;
      const strength = isSeen ? dot(line, across[x - left]) : 0;
      const share = WEAKEST + (STRONGEST - WEAKEST) * strength;
      const colour = 3 * Math.round(255 * strength);
      for (let k = 0; k < 3; k++) {
        result.data[at + k] = isSeen ? grey * (1 - share) + facts.colours[colour + k] * share : grey * OUTSIDE;
      }
      result.data[at + 3] = 255;
    }
  }
  return result;
}

/** The rows of a map blended by weights: one value for each column. */
function blended({ rows, columns, values }, weights) {
  const line = new Float32Array(columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) line[column] += weights[row] * values[row * columns + column];
  }
  return line;
}

function dot(line, weights) {
  let sum = 0;
  for (let column = 0; column < line.length; column++) sum += line[column] * weights[column];
  return Math.min(1, Math.max(0, sum));
}

/** Cubic convolution (R. Keys 1981, a = -1/2): the weights of all cells for each pixel. */
function cubicWeights(cells, side) {
  const kernel = (t) => {
    if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
    return t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0;
  };
  return Array.from({ length: side }, (_, pixel) => {
    const position = ((pixel + 0.5) * cells) / side - 0.5;
    const weights = Array.from({ length: cells }, (_, cell) => kernel(Math.abs(cell - position)));
    const sum = weights.reduce((one, other) => one + other, 0);
    return weights.map((weight) => weight / sum);
  });
}
