// Help while the form is filled in: how long a request of this size takes, and better words for a name that means
// several things. Both only ask this site, after a pause in typing, and stay silent where no answer comes.

const PAUSE_ESTIMATE = 300; // ms
const PAUSE_WORDS = 600; // ms without a key before a name is looked up
const BETWEEN = 1200; // ms between two look-ups: the source is asked at its own pace
const LEAST = 3; // letters
const form = document.querySelector("form.form");
const box = document.getElementById("classes");
const list = box.querySelector("[data-questions]");
const names = () => [...box.querySelectorAll("[data-rows=classes] > *")].map((row) => ({ row, name: row.querySelector("input").value.trim() }));
const queryOf = (row) => form.querySelectorAll("[data-rows=queries] input")[[...row.parentElement.children].indexOf(row)];

// --- the estimate ---

let estimating = 0;
let shown = "";

function estimateSoon() {
  clearTimeout(estimating);
  estimating = setTimeout(estimate, PAUSE_ESTIMATE);
}

async function estimate() {
  const size = new URLSearchParams({
    classes: names().filter(({ name }) => name).length,
    images: form.elements.images_per_class.value,
  });
  if (String(size) === shown) return;
  shown = String(size);
  const answer = await ask(`${box.dataset.estimate}?${size}`);
  if (answer?.sentence && shown === String(size)) document.getElementById("estimate").textContent = answer.sentence;
}

/** Return the answer as JSON, null where there is none. */
async function ask(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "application/json" } });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// --- better words ---

const changedAt = new WeakMap(); // chip -> when its name was last changed
const known = new Map(); // name -> meanings
const settled = new Set(); // names whose question was answered or put aside
let looking = 0;
let busy = false;

function lookSoon() {
  clearTimeout(looking);
  if (box.dataset.words) looking = setTimeout(look, PAUSE_WORDS);
}

/** Look the names up that are not known yet, one after the other. */
async function look() {
  if (busy) {
    lookSoon();
    return;
  }
  busy = true;
  for (let name = unknown(); name; name = unknown()) {
    const address = `${box.dataset.words}?${new URLSearchParams({ name })}`;
    const answer = (await ask(address)) ?? (await pause(2 * BETWEEN), await ask(address));
    known.set(name, answer?.meanings ?? []);
    show();
    if (list.querySelector(`li[data-name="${CSS.escape(name)}"]`)) {
      say(`${name} can mean: ${answer.meanings.map(({ label }) => label).join(", ")}. Buttons below the names choose one.`);
    }
    if (unknown()) await pause(BETWEEN);
  }
  busy = false;
}

/** Return a name to look up, none that is being typed at this moment: that waits for the next pause. */
function unknown() {
  const now = performance.now();
  const isWanted = ({ row, name }) =>
    [...name].length >= LEAST && !known.has(name) && !queryOf(row).value && now - (changedAt.get(row) ?? -PAUSE_WORDS) >= PAUSE_WORDS - 20;
  return names().find(isWanted)?.name;
}

const pause = (ms) => new Promise((resume) => setTimeout(resume, ms));

/** Show one line for each name that can mean several things, or that has got its words here. */
function show() {
  list.replaceChildren(...names().map(({ row, name }) => {
    if (row.dataset.chosen) return chosenLine(row, name);
    const meanings = known.get(name) ?? [];
    if (!meanings.length || settled.has(name) || queryOf(row).value) return null;
    return questionLine(row, name, meanings);
  }).filter(Boolean));
}

function line(row, ...parts) {
  const item = document.createElement("li");
  item.className = "question";
  const dot = row.querySelector(".dot").cloneNode(true);
  const number = document.createElement("span");
  number.className = dot.className;
  number.textContent = dot.lastChild.textContent;
  number.ariaHidden = "true";
  item.append(number, ...parts);
  return item;
}

function text(words) {
  const part = document.createElement("p");
  part.textContent = words;
  return part;
}

function button(words, spoken, act) {
  const part = document.createElement("button");
  part.type = "button";
  part.className = "button quiet small";
  part.textContent = words;
  part.setAttribute("aria-label", spoken);
  part.addEventListener("click", act);
  return part;
}

function questionLine(row, name, meanings) {
  const choices = meanings.map((meaning) => {
    const choice = button(meaning.label, `${meaning.query}: ${meaning.about}`, () => choose(row, name, meaning));
    choice.title = meaning.about;
    return choice;
  });
  const aside = button("Any", `${name}: leave it as it is`, () => {
    settled.add(name);
    show();
    row.querySelector("input").focus();
  });
  const item = line(row, text(`${name} can mean:`), ...choices, aside);
  item.dataset.name = name;
  return item;
}

function choose(row, name, meaning) {
  queryOf(row).value = meaning.query;
  queryOf(row).dispatchEvent(new Event("input", { bubbles: true }));
  row.dataset.chosen = name;
  show();
  say(`We search for “${meaning.query}”.`);
  list.querySelector("[data-undo]")?.focus();
}

function chosenLine(row, name) {
  const undo = button("Undo", `Undo: search for ${name} alone`, () => {
    forget(row);
    show();
    say(`We search for “${name}”.`);
    row.querySelector("input").focus();
  });
  undo.dataset.undo = "";
  return line(row, text(`We search for “${queryOf(row).value}”.`), undo);
}

function forget(row) {
  delete row.dataset.chosen;
  queryOf(row).value = "";
  queryOf(row).dispatchEvent(new Event("input", { bubbles: true }));
}

function say(words) {
  box.querySelector("[data-spoken]").textContent = words;
}

// --- when ---

form.addEventListener("names", ({ detail: { row } }) => {
  if (row) {
    // Words that were chosen for another name are no longer right.
    if (row.dataset.chosen && row.dataset.chosen !== row.querySelector("input").value.trim()) forget(row);
    changedAt.set(row, performance.now());
  }
  show();
  estimateSoon();
  lookSoon();
});
form.elements.images_per_class.addEventListener("input", estimateSoon);
form.querySelector("[data-rows=queries]").addEventListener("input", (event) => {
  if (event.isTrusted) for (const { row } of names()) if (queryOf(row) === event.target) delete row.dataset.chosen;
  if (event.isTrusted) show();
});
lookSoon();
