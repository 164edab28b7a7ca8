/* The delivered page: a picture in, probabilities and a map of what spoke for each class out. No network at all.

   What a test or a script reads: `data-state` of <html> is starting, needs-model, ready, busy or broken; after each
   answer `data-answers` there counts up and `data-result` of #answer holds it as JSON. */
"use strict";
(() => {
  const LARGEST_PIXELS = 16e6; // beyond that the picture takes too much of a phone's memory as numbers
  const SHRUNK_SIDE = 2048; // still eight times what the network looks at
  const VIEW_SIDES = [320, 1000]; // the longer side of the picture on the page, in its own pixels
  const OUTSIDE = 0.35; // brightness that the part outside the network's view keeps
  const WEAKEST = 0.5, STRONGEST = 0.7; // share of colour where the map says nothing, and where it is at its height

  const root = document.documentElement;
  const byId = (name) => document.getElementById(name);
  const settings = JSON.parse(byId("settings").textContent);
  const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
  const INVITATION = "Drop a picture here, paste one, or choose a file.";

  let session = null;
  let waiting = null; // the picture that came while another, or the model, was not done
  let shown = null; // the present answer, for drawing its maps

  /* --- what the page says ---------------------------------------------------------------------------- */

  function setState(state, invitation, button = "Choose a picture") {
    root.dataset.state = state;
    byId("invitation").textContent = invitation;
    byId("button").textContent = button;
    byId("file").disabled = state === "starting" || state === "broken";
    byId("file").accept = state === "needs-model" ? ".onnx" : "image/*";
  }

  function showProblem(sentence) {
    byId("problem").textContent = sentence;
    byId("problem").hidden = !sentence;
  }

  const ready = () => setState("ready", shown ? "Drop, paste or choose another." : INVITATION);

  /* --- the model ------------------------------------------------------------------------------------- */

  function removeBytes(name) {
    const text = atob(byId(name).textContent);
    byId(name).remove(); // tens of megabytes that nobody needs twice
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  function unpacked(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function start() {
    const wasm = ort.env.wasm;
    wasm.numThreads = 1; // more need headers that a file on a disk does not have
    wasm.proxy = false;
    wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([removeBytes("module")], { type: "text/javascript" })) };
    wasm.wasmBinary = await unpacked(removeBytes("wasm"));
    if (settings.model.inside) return open(removeBytes("model"));
    askForModel();
  }

  function askForModel() {
    const size = Math.round(settings.model.bytes / 1e6);
    const where = "It lies in the folder that this page came in.";
    setState("needs-model", `This model is too large to be inside the page. Drop model.onnx (${size} MB) here first. ${where}`, "Choose model.onnx");
  }

  async function open(bytes) {
    session = await ort.InferenceSession.create(bytes);
    ready();
    if (waiting) classify(waiting);
  }

  async function openDropped(file) {
    if (!(await isOurModel(file))) {
      showProblem(`“${file.name}” is not the model that belongs to this page. It needs the model.onnx of its own folder.`);
      return;
    }
    setState("starting", "The model is being opened …");
    await open(new Uint8Array(await file.arrayBuffer())).catch(giveUp);
  }

  async function isOurModel(file) {
    if (file.size !== settings.model.bytes) return false;
    if (!crypto.subtle) return true; // some browsers have it only on the web
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === settings.model.sha256;
  }

  function giveUp(error) {
    setState("broken", "");
    showProblem(`This browser cannot run the model (${error.message || error}). A current Chrome, Edge, Firefox or Safari can; so can predict.py in the same folder.`);
  }

  /* --- pictures -------------------------------------------------------------------------------------- */

  function take(files) {
    showProblem("");
    const file = files[0];
    if (!file || root.dataset.state === "broken") return;
    if (root.dataset.state === "needs-model" && /\.onnx$/i.test(file.name)) openDropped(file);
    else if (session && root.dataset.state !== "busy") classify(file);
    else keepWaiting(file);
  }

  function keepWaiting(file) {
    waiting = file;
    if (root.dataset.state === "needs-model") showProblem("First the model, please: drop model.onnx here. The picture comes next by itself.");
  }

  async function classify(file) {
    waiting = null;
    setState("busy", "Looking …", "One moment");
    await new Promise((painted) => setTimeout(painted, 30));
    try {
      await answer(file);
      showProblem("");
    } catch (error) {
      showProblem(error instanceof NoPicture ? error.message : `This picture could not be classified (${error.message || error}).`);
    }
    ready();
    if (waiting) classify(waiting);
  }

  class NoPicture extends Error {}

  async function decoded(file) {
    try {
      // As the model's other readers do it: turned upright, and no colour profile applied.
      return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    } catch {
      throw new NoPicture(`“${file.name || "This"}” is no picture that this browser can read.`);
    }
  }

  /* The middle of a picture too large to be taken whole. What is cut off lies outside the network's view, and an even
     number of rows and columns keeps its middle; only what is still too large is scaled, and what is seen whole. */
  function extent(bitmap) {
    const { width, height } = bitmap;
    if (width * height <= LARGEST_PIXELS) return { left: 0, top: 0, width, height, scale: 1 };
    if (settings.resize === null) return { left: 0, top: 0, width, height, scale: Math.sqrt(LARGEST_PIXELS / (width * height)) };
    const side = Math.min(width, height) + 2;
    const left = Math.max(0, Math.floor((width - side) / 2)), top = Math.max(0, Math.floor((height - side) / 2));
    const middle = { left, top, width: width - 2 * left, height: height - 2 * top };
    const scale = middle.width * middle.height <= LARGEST_PIXELS ? 1 : SHRUNK_SIDE / side;
    return { ...middle, scale };
  }

  function pixelsOf(bitmap, { left, top, width, height, scale }) {
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.imageSmoothingQuality = "high";
    brush.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
    return brush.getImageData(0, 0, canvas.width, canvas.height);
  }

  function withoutAlpha({ data, width, height }) {
    const rgb = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; to < rgb.length; from += 4) {
      rgb[to++] = data[from];
      rgb[to++] = data[from + 1];
      rgb[to++] = data[from + 2];
    }
    return new ort.Tensor("uint8", rgb, [height, width, 3]);
  }

  async function answer(file) {
    const bitmap = await decoded(file);
    const image = withoutAlpha(pixelsOf(bitmap, extent(bitmap)));
    const started = performance.now();
    const outputs = await session.run({ image });
    const result = read(outputs, performance.now() - started);
    Object.assign(result, { width: bitmap.width, height: bitmap.height });
    const longer = Math.max(bitmap.width, bitmap.height);
    const scale = Math.min(Math.max(longer, VIEW_SIDES[0]), VIEW_SIDES[1]) / longer;
    const whole = { left: 0, top: 0, width: bitmap.width, height: bitmap.height, scale };
    shown = { result, maps: evidence(outputs.cam), picture: pixelsOf(bitmap, whole) };
    bitmap.close();
    show();
  }

  function read(outputs, elapsed) {
    const values = Array.from(outputs.probabilities.data);
    const novelty = outputs.novelty.data[0];
    return {
      label: settings.classes[values.indexOf(Math.max(...values))],
      known: novelty <= settings.reject,
      novelty,
      probabilities: values,
      elapsed_ms: Math.round(elapsed),
    };
  }

  /* --- the answer ------------------------------------------------------------------------------------ */

  function show() {
    const { result } = shown;
    root.dataset.known = String(result.known);
    root.dataset.answered = "";
    byId("verdict").textContent = result.known ? result.label : "None of these";
    byId("reason").textContent = reason(result);
    byId("facts").textContent =
      `${result.width} × ${result.height} pixels, ${result.elapsed_ms} ms. ` +
      `Unfamiliarity ${result.novelty.toFixed(2)} (limit ${settings.reject.toFixed(2)}).`;
    byId("bars").replaceChildren(bar("Picture alone"), ...ranked(result).map(([number, p], rank) => bar(settings.classes[number], number, p, rank)));
    byId("answer").hidden = byId("figure").hidden = false;
    draw(null);
    byId("figure").scrollIntoView({ block: "nearest" });
    byId("answer").dataset.result = JSON.stringify(result);
    root.dataset.answers = Number(root.dataset.answers || 0) + 1;
    byId("status").textContent = `${byId("verdict").textContent}. ${byId("reason").textContent}`;
  }

  const ranked = (result) => [...result.probabilities.entries()].sort((one, other) => other[1] - one[1]);

  function reason(result) {
    const sure = percent(Math.max(...result.probabilities));
    if (result.known) return `The model is ${sure} sure.`;
    return `Closest class: ${result.label} (${sure}).`;
  }

  function bar(name, number = null, probability = null, rank = null) {
    const row = element("label", rank === 0 ? "bar first" : "bar");
    const choice = element("input");
    Object.assign(choice, { type: "radio", name: "map", value: number ?? "none", checked: number === null });
    choice.addEventListener("change", () => draw(number));
    const label = element("span", "name");
    label.dir = "auto";
    label.textContent = name;
    row.append(choice, label);
    if (number !== null) row.append(...amount(probability));
    return row;
  }

  function amount(probability) {
    const share = element("output"), track = element("span", "track"), filled = element("i");
    share.textContent = percent(probability);
    filled.style.width = `${100 * probability}%`;
    track.append(filled);
    return [share, track];
  }

  function element(tag, className = "") {
    const made = document.createElement(tag);
    made.className = className;
    return made;
  }

  /* --- maps ------------------------------------------------------------------------------------------ */

  /* What spoke for each class rather than for the others: its map less the mean of all maps, which changes no
     probability. All are seen on one scale, so that a class without evidence stays dark. */
  function evidence(cam) {
    const [, classes, rows, columns] = cam.dims;
    const cells = rows * columns;
    const maps = Array.from({ length: classes }, (_, number) => cam.data.slice(number * cells, (number + 1) * cells));
    const mean = maps[0].map((_, cell) => maps.reduce((sum, map) => sum + map[cell], 0) / classes);
    const own = maps.map((map) => map.map((value, cell) => value - mean[cell]));
    const top = Math.max(1e-9, ...own.map((map) => Math.max(...map)));
    return { rows, columns, values: own.map((map) => map.map((value) => Math.min(1, Math.max(0, value / top)))) };
  }

  function draw(number) {
    const canvas = byId("view"), { picture, result } = shown;
    canvas.width = picture.width;
    canvas.height = picture.height;
    byId("scale").hidden = number === null;
    const name = number === null ? "" : settings.classes[number];
    canvas.setAttribute("aria-label", name ? `Where the picture spoke for “${name}”` : `The picture, ${result.width} × ${result.height} pixels`);
    canvas.getContext("2d").putImageData(number === null ? picture : coloured(picture, shown.maps, number), 0, 0);
  }

  function coloured({ data, width, height }, { rows, columns, values }, number) {
    const shorter = Math.min(width, height), whole = settings.resize === null;
    const side = whole ? Math.max(width, height) : Math.max(1, Math.min(Math.round((shorter * settings.crop) / settings.resize), shorter));
    const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
    const [first, last] = [Math.max(left, 0), Math.min(left + side, width)];
    const strengths = spread(values[number], rows, columns, side, [first - left, last - left], [Math.max(-top, 0), Math.min(side, height - top)]);
    const result = new ImageData(width, height);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at += 4) {
        const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
        const seen = x >= left && x < left + side && y >= top && y < top + side;
        const strength = seen ? strengths[(y - Math.max(top, 0)) * (last - first) + x - first] : 0;
        const share = WEAKEST + (STRONGEST - WEAKEST) * strength;
        const colour = colourAt(strength);
        for (let k = 0; k < 3; k++) result.data[at + k] = seen ? grey * (1 - share) + colour[k] * share : grey * OUTSIDE;
        result.data[at + 3] = 255;
      }
    }
    return result;
  }

  /* A map of a few cells spread smoothly over side × side pixels, clipped to 0..1; of those the pixels of a picture, which
     the ranges tell. */
  function spread(map, rows, columns, side, rangeAcross, rangeDown) {
    const down = cubicWeights(rows, side).slice(...rangeDown), across = cubicWeights(columns, side).slice(...rangeAcross);
    const width = across.length, height = down.length;
    const result = new Float32Array(width * height), line = new Float32Array(columns);
    for (let y = 0; y < height; y++) {
      for (let column = 0; column < columns; column++) line[column] = down[y].reduce((sum, w, row) => sum + w * map[row * columns + column], 0);
      for (let x = 0; x < width; x++) result[y * width + x] = Math.min(1, Math.max(0, across[x].reduce((sum, w, column) => sum + w * line[column], 0)));
    }
    return result;
  }

  /* Cubic convolution (R. Keys 1981, a = -1/2), weights of all cells for each pixel. */
  function cubicWeights(cells, side) {
    const kernel = (t) => (t < 1 ? (1.5 * t - 2.5) * t * t + 1 : t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0);
    return Array.from({ length: side }, (_, pixel) => {
      const position = ((pixel + 0.5) * cells) / side - 0.5;
      const weights = Array.from({ length: cells }, (_, cell) => kernel(Math.abs(cell - position)));
      const sum = weights.reduce((one, other) => one + other, 0);
      return weights.map((weight) => weight / sum);
    });
  }

  const COLOURS = settings.colours.match(/../g).map((digits) => parseInt(digits, 16));
  const colourAt = (strength) => COLOURS.slice(3 * Math.round(255 * strength), 3 * Math.round(255 * strength) + 3);

  function paintRamp() {
    const stops = [0, 0.25, 0.5, 0.75, 1].map((at) => `rgb(${colourAt(at).join(" ")})`);
    byId("ramp").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  }

  /* --- where pictures come from ------------------------------------------------------------------------ */

  function listen() {
    byId("file").addEventListener("change", (event) => {
      take(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
    for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
      event.preventDefault();
      root.dataset.dragging = "";
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete root.dataset.dragging; });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      delete root.dataset.dragging;
      receive(event.dataTransfer);
    });
    document.addEventListener("paste", (event) => receive(event.clipboardData));
  }

  function receive(transfer) {
    if (transfer.files.length) take(transfer.files);
    else showProblem("There is no picture in that. This page does not use the internet: save the picture first, then give it the file.");
  }

  listen();
  paintRamp();
  start().catch(giveUp);
})();
