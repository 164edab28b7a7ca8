// Sends a person's pictures in goes that the site takes, whole folders too, and follows the measuring.

const OFFLINE = "The site could not be reached. Check your connection and try again.";
const PER_GO = 20;
const LEFT_OUT = `left out of ${location.pathname}`; // outlives the reload after the sending
const OTHER_FILES = /^(\.|__MACOSX$|Thumbs\.db$|desktop\.ini$)/i;

const form = document.getElementById("own-form");
const progress = document.getElementById("own-progress");
for (const part of document.querySelectorAll(".with-scripts")) part.hidden = false;
for (const part of document.querySelectorAll(".without-scripts")) part.hidden = true;

/* --- giving ------------------------------------------------------------------------------------------------ */

const key = (name) => name.normalize("NFC").trim().toLowerCase();

function numbers() {
  const found = new Map();
  for (const input of form.querySelectorAll("[data-number]")) {
    found.set(key(input.dataset.name), input.dataset.number);
    found.set(`c${input.dataset.number.padStart(3, "0")}`, input.dataset.number);
  }
  return found;
}

/** Files of folders: {file, path}; the folder that a file lies in says its class. Says which belong to none. */
function ofFolders(entries) {
  const known = numbers();
  const given = [];
  const strange = new Set();
  for (const { file, path } of entries) {
    const parts = path.split("/");
    if (parts.some((part) => OTHER_FILES.test(part))) continue;
    const folder = parts.at(-2) ?? "";
    const number = known.get(key(folder));
    if (number) given.push({ file, field: `pictures-${number}` });
    else strange.add(folder);
  }
  complain(leftOut(strange));
  return given;
}

function leftOut(folders) {
  const sentences = [];
  if (folders.delete("")) sentences.push("Drop a folder for each class, called as the class, or choose the pictures beside its name.");
  const names = [...folders].slice(0, 5).map((name) => `“${name}”`);
  if (names.length) sentences.push(`No class is called ${names.join(", ")}; those pictures were left out.`);
  return sentences.join(" ");
}

function complain(sentence) {
  const problem = document.getElementById("own-problem");
  problem.textContent = sentence;
  problem.hidden = !sentence;
}

/** Cut the files into goes of few files and few bytes. */
function goes(given) {
  const most = Number(form.dataset.goBytes) * 0.9;
  const cut = [];
  let bytes = Infinity;
  for (const one of given) {
    if (bytes + one.file.size > most || cut.at(-1).length >= PER_GO) {
      cut.push([]);
      bytes = 0;
    }
    cut.at(-1).push(one);
    bytes += one.file.size;
  }
  return cut;
}

async function send(body) {
  body.set("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
  const response = await fetch(location.pathname, { method: "POST", headers: { Accept: "application/json" }, body });
  if (!response.ok) throw new Error(`The site could not take them (${response.status}). Try again with fewer pictures.`);
  const answer = await response.json();
  if (answer.problem) throw new Error(answer.problem);
}

async function give(given, starts) {
  if (!given.length && !starts) return;
  const buttons = form.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  const sending = document.getElementById("own-sending");
  try {
    let sent = 0;
    for (const go of goes(given)) {
      sending.textContent = `Sending ${sent} of ${given.length} …`;
      const body = new FormData();
      body.set("do", "give");
      for (const { file, field } of go) body.append(field, file, file.name);
      await send(body);
      sent += go.length;
    }
    if (starts) {
      const body = new FormData();
      body.set("do", "measure");
      await send(body);
    }
    sessionStorage.setItem(LEFT_OUT, document.getElementById("own-problem").textContent);
    location.assign(location.pathname);
  } catch (error) {
    complain(error instanceof TypeError ? OFFLINE : error.message);
    sending.textContent = "";
    for (const button of buttons) button.disabled = false;
  }
}

function chosen() {
  const given = [];
  for (const input of form.querySelectorAll("input[type=file][name]")) {
    for (const file of input.files) given.push({ file, field: input.name });
  }
  const folder = document.getElementById("own-folder");
  const entries = [...folder.files].map((file) => ({ file, path: file.webkitRelativePath }));
  return given.concat(ofFolders(entries));
}

/** All files below what was dropped, with their paths. */
async function dropped(entry, path = "") {
  const here = path ? `${path}/${entry.name}` : entry.name;
  if (entry.isFile) return [{ file: await new Promise((done, failed) => entry.file(done, failed)), path: here }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...(await dropped(one, here)));
  }
}

const told = document.getElementById("own-left-out");
told.textContent = sessionStorage.getItem(LEFT_OUT) ?? "";
told.hidden = !told.textContent;
if (!progress) sessionStorage.removeItem(LEFT_OUT); // the figures come with one more reload

if (form) {
  form.addEventListener("submit", (event) => {
    const given = chosen();
    const isDraft = document.getElementById("own-given");
    if (!given.length && !isDraft) return; // the site says what is missing
    event.preventDefault();
    give(given, event.submitter?.value !== "give");
  });
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const found = (await Promise.all(entries.map((entry) => dropped(entry)))).flat();
    const zips = found.filter(({ path }) => !path.includes("/") && path.toLowerCase().endsWith(".zip"));
    const others = found.filter((one) => !zips.includes(one));
    give([...zips.map(({ file }) => ({ file, field: "zip" })), ...ofFolders(others)], false);
  });
}

/* --- following --------------------------------------------------------------------------------------------- */

async function follow() {
  if (!document.hidden) {
    try {
      const response = await fetch(location.pathname, { headers: { "X-Fragment": "1" } });
      const parts = new DOMParser().parseFromString(await response.text(), "text/html");
      const waiting = parts.getElementById("waiting");
      if (!waiting || "done" in waiting.dataset) return location.assign(location.pathname);
      document.getElementById("waiting").replaceWith(waiting);
    } catch (error) {
      console.warn(error); // the next try may reach it
    }
  }
  setTimeout(follow, 2000);
}

if (progress) setTimeout(follow, 1000);
