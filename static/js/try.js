// Pictures in, answers out, one by one and without a reload. Without scripts the same form is sent whole, and the server
// shows the same answers.

const form = document.getElementById("give");
const answers = document.getElementById("answers");
const spoken = document.getElementById("spoken");
const urlField = document.getElementById("id_url");
const urlError = document.getElementById("url_error");
const device = document.getElementById("device");
const onDevice = document.getElementById("on_device");
const most = Number(form.dataset.most);
const largest = Number(form.dataset.largest) * 1e6;

const OFFLINE = "The site could not be reached. Check your connection and try again.";

let session = null; // what classifies on this device, once it has been loaded
const given = new WeakMap(); // what each answer is about
let last = Promise.resolve(); // pictures are answered one after the other

/* --- an answer on the page --------------------------------------------------------------------------------- */

function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function write(part, name, text) {
  part.querySelector(`[data-field="${name}"]`).textContent = text;
}

/** Put an empty answer on the page, with the picture from the browser's own memory where it can show it. */
function begin(name, file) {
  const card = fromTemplate("answer-template");
  card.classList.remove("unknown", "refused");
  card.classList.add("waiting");
  write(card, "name", name);
  write(card, "title", "Looking …");
  const picture = card.querySelector(".view-picture");
  given.set(card, file ? { file } : { url: name });
  if (file) {
    picture.onload = () => (picture.hidden = false);
    picture.src = URL.createObjectURL(file);
  }
  return card;
}

function finish(card, answer) {
  const picture = card.querySelector(".view-picture");
  if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
  picture.onload = null;
  card.classList.remove("waiting");
  card.classList.toggle("unknown", !answer.known);
  card.classList.toggle("refused", Boolean(answer.problem));
  for (const name of ["problem", "title", "reason", "facts"]) write(card, name, answer[name] ?? "");
  card.querySelector('[data-field="problem"]').hidden = !answer.problem;
  picture.hidden = !answer.picture;
  if (answer.picture) picture.src = answer.picture;
  if (answer.map) card.querySelector(".view-map").src = answer.map;
  card.querySelector(".shares").replaceChildren(...(answer.bars ?? []).map(bar));
  card.querySelector(".nears").replaceChildren(...(answer.nearest ?? []).map(near));
  card.querySelector(".alike").hidden = !answer.nearest?.length;
  spoken.textContent = answer.problem || `${answer.title}. ${answer.reason}`;
  // For tests and for programs that drive the page.
  card.dataset.result = JSON.stringify({ bars: answer.bars, known: answer.known, novelty: answer.novelty });
}

function bar({ name, share, text }) {
  const row = fromTemplate("bar-template");
  row.querySelector(".share-name").textContent = name;
  row.querySelector(".share-text").textContent = text;
  row.querySelector("progress").value = share;
  row.querySelector("progress").setAttribute("aria-label", name);
  return row;
}

function near({ label, similarity, credit, page, thumbnail }) {
  const row = fromTemplate("near-template");
  for (const [name, text] of Object.entries({ label, similarity, credit })) write(row, name, text);
  const image = row.querySelector("img");
  image.hidden = !thumbnail;
  if (thumbnail) image.src = thumbnail;
  const link = row.querySelector("a");
  link.hidden = !page;
  if (page) link.href = page;
  return row;
}

/* --- asking ------------------------------------------------------------------------------------------------ */

async function ask(fields) {
  const body = new FormData();
  body.set("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
  for (const [name, value] of Object.entries(fields)) body.set(name, value);
  const answer = await post(location.pathname, body);
  return answer.problem ? answer : answer.answers[0];
}

/** Send it; return what the site answers as JSON, or the problem that there is none. */
async function post(address, body) {
  try {
    const response = await fetch(address, { method: "POST", headers: { Accept: "application/json" }, body });
    if (response.ok) return await response.json();
    return { problem: `The site could not answer (${response.status}). Reload this page and try again.` };
  } catch {
    return { problem: OFFLINE };
  }
}

/** Do something when all before it is done; one that fails stops no other. */
function queue(work) {
  last = last.then(work).catch((error) => console.error(error));
  return last;
}

function takeFiles(files) {
  const taken = [...files].map((file) => ({ file, card: begin(file.name || "picture", file) }));
  answers.prepend(...taken.map(({ card }) => card));
  for (const [number, { file, card }] of taken.entries()) {
    if (number >= most) finish(card, { problem: `Only ${most} pictures fit into one go. Send the others next.` });
    else queue(async () => finish(card, await answerTo(file)));
  }
}

async function answerTo(file) {
  try {
    if (session) return await session.classify(file);
    if (file.size > largest) return { problem: `This file is larger than ${form.dataset.largest} MB.` };
    return await ask({ pictures: file });
  } catch (error) {
    console.warn(error);
    return { problem: "This picture could not be classified. Try it again, or another one." };
  }
}

function takeUrl(url) {
  const card = begin(url, null);
  answers.prepend(card);
  urlError.hidden = true;
  urlField.parentElement.classList.remove("bad");
  return queue(async () => {
    const answer = await ask({ url });
    if (!answer.problem) {
      finish(card, answer);
      urlField.value = "";
      return;
    }
    card.remove();
    refuseUrl(answer.problem);
  });
}

function refuseUrl(problem) {
  urlError.textContent = problem;
  urlError.hidden = false;
  urlField.parentElement.classList.add("bad");
  spoken.textContent = problem;
  urlField.focus();
}

/* --- where pictures come from ------------------------------------------------------------------------------ */

for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    takeFiles(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const url = urlField.value.trim();
  if (urlField.disabled) document.getElementById("id_pictures").click();
  else if (url) takeUrl(url);
  else refuseUrl("Choose a picture, or give the web address of one.");
});

function receive(transfer) {
  if (transfer.files.length) {
    takeFiles(transfer.files);
    return true;
  }
  const text = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).trim();
  if (!/^https?:\/\/\S+$/.test(text) || urlField.disabled) return false;
  urlField.value = text;
  takeUrl(text);
  return true;
}

document.addEventListener("paste", (event) => {
  if (event.target === urlField && !event.clipboardData.files.length) return;
  if (receive(event.clipboardData)) event.preventDefault();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.add("dragging");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("dragging");
  receive(event.dataTransfer);
});

/* --- on this device ---------------------------------------------------------------------------------------- */

const progress = document.getElementById("device_progress");
const deviceError = document.getElementById("device_error");

async function switchOn() {
  const { open } = await import(device.dataset.script);
  progress.hidden = false;
  const opened = await open(device.dataset, (share) => (progress.value = share));
  progress.hidden = true;
  return opened;
}

onDevice.addEventListener("change", () => {
  const isOn = onDevice.checked;
  urlField.disabled = isOn;
  document.getElementById("url_off").hidden = !isOn;
  for (const complaint of [deviceError, urlError]) complaint.hidden = true;
  urlField.parentElement.classList.remove("bad");
  device.dataset.state = isOn ? "loading" : "off";
  // In the queue: what is given while the model loads waits for it, and is never sent.
  queue(async () => {
    session = null;
    if (!isOn) return;
    try {
      session = await switchOn();
      device.dataset.state = "ready";
      spoken.textContent = "The model is loaded. Pictures stay on this device.";
    } catch (error) {
      console.warn(error);
      progress.hidden = true;
      device.dataset.state = "broken";
      session = { classify: () => ({ problem: "The model could not be loaded on this device. Switch “on this device” off to let the site classify." }) };
      deviceError.textContent = "This browser could not load the model. Try again, or switch this off to let the site classify.";
      deviceError.hidden = false;
    }
  });
});

onDevice.checked = false; // a reload must not show as on what is off
device.hidden = false;
for (const part of document.querySelectorAll(".with-scripts")) part.hidden = false;

// Only where it is allowed, and by the address in the page: the worker of a shared result keeps what the page names.
if (form.dataset.correct) {
  const { bindCorrections } = await import(form.dataset.correct);
  bindCorrections(answers, { post, givenOf: (card) => given.get(card), say: (sentence) => (spoken.textContent = sentence) });
}
