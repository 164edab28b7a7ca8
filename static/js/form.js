// The names as chips: each chip is one of the form's own fields, so that what is sent, what comes back with an error and
// what works without scripts are the same. Without scripts the buttons send the form, and the server adds and removes rows.

const PAUSE_CHECK = 400; // ms without a key before a name is complained about
const SEPARATORS = /[,;\n\r\t、，；]+/;
const form = document.querySelector("form.form");
const box = document.getElementById("classes");
const lists = { classes: form.querySelector("[data-rows=classes]"), queries: form.querySelector("[data-rows=queries]") };
const add = form.querySelector("[data-add]");
const rules = box.dataset;
const MOST = Number(rules.most);
const FEWEST = Number(rules.fewest);

const rows = () => [...lists.classes.children];
const field = (row) => row.querySelector("input");
const indexOf = (row) => rows().indexOf(row);
const queryField = (row) => field(lists.queries.children[indexOf(row)]);
const named = () => rows().filter((row) => field(row).value.trim());
// As the server compares names: letters in one case, in normal form C, with single spaces.
const folded = (name) => name.normalize("NFC").toLowerCase().replace(/\s+/g, " ").trim();

function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function say(line) {
  box.querySelector("[data-spoken]").textContent = line;
}

/** Tell the parts of the page that depend on the classes: the estimate and the words. */
function changed(row) {
  remember();
  form.dispatchEvent(new CustomEvent("names", { detail: { row } }));
}

/** Give every row of both lists its number, ids and button label again. */
function renumber() {
  for (const [name, list] of Object.entries(lists)) {
    [...list.children].forEach((row, index) => {
      const input = field(row);
      const label = row.querySelector("label");
      const complaint = row.querySelector(".complaint");
      input.id = label.htmlFor = `id_${name}_${index}`;
      if (complaint) {
        complaint.id = `${input.id}_error`;
        input.setAttribute("aria-describedby", complaint.id);
      }
      if (name === "classes") {
        label.className = `dot dot-${index + 1}`;
        label.lastChild.textContent = String(index + 1);
        row.querySelector("[data-remove]").value = String(index);
      } else {
        label.firstChild.textContent = `Class ${index + 1}`;
      }
    });
  }
  add.disabled = rows().length >= MOST;
  describe();
}

/** Fit each chip to its name, and show the name where the class is spoken of. */
function describe() {
  rows().forEach((row, index) => {
    const name = field(row).value.trim();
    field(row).size = Math.min(40, Math.max(field(row).value.length, field(row).placeholder.length)) + 1;
    row.querySelector("[data-remove]").setAttribute("aria-label", name ? `Remove ${name}` : `Remove class ${index + 1}`);
    lists.queries.children[index].querySelector("[data-name]").textContent = name ? `: ${name.slice(0, 40)}` : "";
  });
}

/** Add an empty chip at the end; null where there are as many as may be. */
function addRow() {
  if (rows().length >= MOST) return null;
  lists.classes.append(fromTemplate("class-row"));
  lists.queries.append(fromTemplate("query-row"));
  renumber();
  return lists.classes.lastElementChild;
}

function removeRow(row) {
  lists.queries.children[indexOf(row)].remove();
  row.remove();
  while (rows().length < FEWEST) addRow();
  renumber();
  checkSoon();
  changed(null);
}

/** Put the cursor behind the name of a chip. */
function edit(row) {
  field(row).focus();
  field(row).setSelectionRange(field(row).value.length, field(row).value.length);
}

const emptyRow = () => rows().find((row) => !field(row).value.trim());

/** Go on to the next empty chip. */
function next() {
  const empty = emptyRow() ?? addRow();
  if (empty) edit(empty);
  else say(rules.many.replace("{count}", MOST + 1));
}

/** Take a name as it is, and go on; a name that the server would refuse stays under the cursor. */
function take(row, name) {
  field(row).value = name;
  check();
  changed(row);
  describe();
  if (row.classList.contains("bad")) return;
  next();
  if (name) say(`${name} added. ${named().length === 1 ? rules.second : `${named().length} classes.`}`);
}

/** Make a chip of each name in a text, beginning with this one; say which had no room. */
function spread(row, text) {
  const names = text.split(SEPARATORS).map((name) => name.trim()).filter(Boolean);
  if (names.length < 2) {
    take(row, names[0] ?? "");
    return;
  }
  const others = rows().filter((other) => other !== row);
  const known = new Set(others.map((other) => folded(field(other).value)).filter(Boolean));
  const fresh = names.filter((name) => !known.has(folded(name)) && known.add(folded(name)));
  field(row).value = fresh.shift() ?? "";
  const made = [row];
  while (fresh.length) {
    const place = emptyRow() ?? addRow();
    if (!place) break;
    field(place).value = fresh.shift();
    made.push(place);
  }
  describe();
  made.forEach(changed);
  next();
  const added = made.map((each) => field(each).value).filter(Boolean);
  const words = [`${added.join(", ")} added. ${named().length} classes.`];
  if (fresh.length) words.push(`${rules.many.replace("{count}", named().length + fresh.length)} Left out: ${fresh.join(", ")}.`);
  say(words.join(" "));
  complainAbove(fresh.length ? words.at(-1) : "");
  checkSoon();
}

/** Say a sentence about all names in the line below them. */
function complainAbove(sentence) {
  const hint = box.querySelector("[data-hint]");
  hint.dataset.usual ??= hint.textContent;
  hint.textContent = sentence || hint.dataset.usual;
  hint.classList.toggle("complaint", Boolean(sentence));
}

/** Put the server's own sentence beside a name, or take it away. */
function complain(row, sentence) {
  const input = field(row);
  const old = row.querySelector(".complaint");
  if ((old?.textContent ?? "") === sentence) return;
  old?.remove();
  row.classList.toggle("bad", Boolean(sentence));
  input.removeAttribute("aria-invalid");
  input.removeAttribute("aria-describedby");
  if (!sentence) return;
  const complaint = document.createElement("p");
  complaint.className = "complaint";
  complaint.id = `${input.id}_error`;
  complaint.textContent = sentence;
  row.append(complaint);
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", complaint.id);
  say(sentence);
}

function check() {
  const first = new Map();
  rows().forEach((row, index) => {
    const name = field(row).value.normalize("NFC").replace(/\s+/g, " ").trim();
    const key = folded(name);
    const length = [...name].length;
    let sentence = "";
    if (length > Number(rules.longest)) sentence = `At most ${rules.longest} characters, please; this has ${length}.`;
    else if (key && first.has(key)) sentence = rules.same.replace("{first}", first.get(key)).replace("{second}", index + 1);
    if (key && !first.has(key)) first.set(key, index + 1);
    complain(row, sentence);
  });
}

let checking = 0;
function checkSoon() {
  clearTimeout(checking);
  checking = setTimeout(check, PAUSE_CHECK);
}

add.addEventListener("click", (event) => {
  event.preventDefault();
  const row = addRow();
  if (row) edit(row);
});

lists.classes.addEventListener("click", (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button) {
    if (event.target === lists.classes) next(); // between the chips, as in one large field
    return;
  }
  event.preventDefault();
  const row = button.closest("[data-row]");
  const index = indexOf(row);
  const name = field(row).value.trim() || `Class ${index + 1}`;
  removeRow(row);
  say(`${name} removed. ${named().length} classes.`);
  edit(rows()[Math.min(index, rows().length - 1)]);
});

lists.classes.addEventListener("keydown", (event) => {
  const input = event.target;
  if (event.isComposing || input.name !== "classes") return;
  const row = input.closest("[data-row]");
  const near = { Backspace: row.previousElementSibling, ArrowLeft: row.previousElementSibling, ArrowRight: row.nextElementSibling }[event.key];
  const atEnd = input.selectionStart === input.value.length;
  const atStart = input.selectionEnd === 0;
  if (event.key === "Enter" && input.value.trim()) {
    event.preventDefault();
    take(row, input.value.trim());
  } else if (event.key === "Enter" && named().length < FEWEST) {
    event.preventDefault();
    say(rules.second);
  } else if (event.key === "Enter" && !form.elements.email.value) {
    event.preventDefault();
    form.elements.email.focus();
  } else if (event.key === "Backspace" && !input.value && near) {
    event.preventDefault();
    if (rows().length > FEWEST) removeRow(row);
    edit(near);
    say(`Editing ${field(near).value}.`);
  } else if (near && ((event.key === "ArrowLeft" && atStart) || (event.key === "ArrowRight" && atEnd))) {
    event.preventDefault();
    edit(near);
  }
});

lists.classes.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text");
  if (event.target.name !== "classes" || !SEPARATORS.test(text.trim())) return;
  event.preventDefault();
  const { value, selectionStart, selectionEnd } = event.target;
  spread(event.target.closest("[data-row]"), value.slice(0, selectionStart) + text + value.slice(selectionEnd));
});

lists.classes.addEventListener("input", (event) => {
  const row = event.target.closest("[data-row]");
  if (!event.isComposing && SEPARATORS.test(event.target.value)) {
    spread(row, event.target.value);
    return;
  }
  if (!event.target.value.trim()) event.target.value = ""; // the space after a comma
  complain(row, "");
  complainAbove("");
  describe();
  checkSoon();
  changed(row);
});

lists.queries.addEventListener("input", () => remember());

// Browsers give back what was typed in the fields that the page came with; these may be more, or fewer.
function remember() {
  const typed = rows().map((row) => [field(row).value, queryField(row).value]);
  history.replaceState({ ...history.state, typed }, "");
}

window.addEventListener("pageshow", (event) => {
  delete form.dataset.sent;
  const typed = history.state?.typed;
  const [visit] = performance.getEntriesByType("navigation");
  if (event.persisted || !typed || visit?.type !== "back_forward") return;
  while (rows().length < typed.length) addRow();
  typed.forEach(([name, query], index) => {
    field(rows()[index]).value = name;
    queryField(rows()[index]).value = query;
  });
  renumber();
  changed(null);
});

// One press is one submission: the second one of a double click would be a second request.
form.addEventListener("submit", (event) => {
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});

renumber();
