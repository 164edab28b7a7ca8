// The gallery with a script: keys, ranges, a lasso, and decisions that are saved without leaving the page. Without it the
// same form sends the same decisions.

const form = document.getElementById("decide");
const grid = document.getElementById("grid");
const panel = document.getElementById("panel");
const keys = document.getElementById("keys");
const chosenLine = document.getElementById("chosen");
const pending = document.getElementById("pending");
const undoButton = document.getElementById("undo");
const LASSO_AFTER = 6; // px that the mouse moves before a click becomes a lasso

let anchor = null; // the tile from which a range begins
let opened = null; // the tile whose panel is open

const tiles = () => (grid ? [...grid.querySelectorAll(".tile")].filter((tile) => box(tile)) : []);
const box = (tile) => tile.querySelector("input[type=checkbox]");
const chosen = () => tiles().filter((tile) => box(tile).checked);
const focused = () => document.activeElement?.closest?.(".tile") ?? null;

document.querySelector("[data-show]").hidden = true;
document.getElementById("help").hidden = false;
document.getElementById("help").addEventListener("click", () => keys.showModal());
document.getElementById("filters").addEventListener("change", (event) => event.currentTarget.requestSubmit());
// A filter that says nothing does not stand in the address.
document.getElementById("filters").addEventListener("submit", (event) => {
  for (const field of event.currentTarget.elements) if (field.name && !field.value) field.disabled = true;
});

// --- choosing ---

function showChosen(sentence = "") {
  const count = chosen().length;
  const text = count === 0 ? "Choose pictures" : `${count} chosen`;
  chosenLine.textContent = sentence || text;
  for (const tile of tiles()) tile.classList.toggle("chosen", box(tile).checked);
  form.classList.toggle("idle", count === 0);
}

function choose(from, to, checked) {
  const all = tiles();
  const ends = [all.indexOf(from), all.indexOf(to)].sort((one, other) => one - other);
  for (const tile of all.slice(ends[0], ends[1] + 1)) box(tile).checked = checked;
}

grid?.addEventListener("click", (event) => {
  if (!event.target.matches("input[type=checkbox]")) {
    // A click on the picture reaches the box as a second click, which has no Shift.
    if (event.shiftKey && event.target.closest("label") && anchor) {
      event.preventDefault();
      choose(anchor, event.target.closest(".tile"), true);
      showChosen();
    }
    return;
  }
  const tile = event.target.closest(".tile");
  if (event.shiftKey && anchor) choose(anchor, tile, event.target.checked);
  anchor = tile;
  showChosen();
});

/** Move the focus by so many pictures; past the end, to the next page. */
function step(by) {
  const all = tiles();
  const now = all.indexOf(focused());
  const next = now < 0 ? 0 : now + by;
  if (next < 0) return document.getElementById("earlier")?.click();
  if (next >= all.length) return document.getElementById("later")?.click();
  box(all[next]).focus();
  all[next].scrollIntoView({ block: "nearest" });
}

// --- deciding ---

/** Send a decision; the answer says what has changed. */
async function send(address, data) {
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  data.set("csrfmiddlewaretoken", token);
  document.body.classList.add("saving");
  try {
    const response = await fetch(address, { method: "POST", body: data, headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(String(response.status));
    apply(await response.json());
  } catch {
    showChosen("Not saved: the site did not answer. Try again.");
    chosenLine.classList.add("complaint");
    return;
  } finally {
    document.body.classList.remove("saving");
  }
  chosenLine.classList.remove("complaint");
}

function apply(answer) {
  for (const change of answer.changed) {
    const tile = grid?.querySelector(`.tile[data-key="${change.key}"]`);
    if (!tile) continue;
    tile.classList.toggle("removed", change.state === "removed");
    tile.classList.toggle("kept", change.state === "kept");
    const dot = tile.querySelector("[data-number]");
    dot.textContent = change.number;
    dot.className = `dot dot-${change.number}`;
    tile.querySelector("[data-name]").textContent = change.name;
    box(tile).checked = false;
  }
  undoButton.disabled = !answer.may_undo;
  pending.hidden = !answer.pending.changes;
  pending.querySelector("[data-changes]").textContent = answer.pending.changes;
  pending.querySelector("[data-obstacle]").textContent = answer.pending.obstacle;
  pending.querySelector("[data-train]").disabled = Boolean(answer.pending.obstacle);
  showChosen(answer.sentence);
}

/** Decide about the chosen pictures, else about the one that has the focus, and go on to the next. */
function decide(action, number = "") {
  const many = chosen();
  const one = opened ?? focused();
  const subjects = opened || many.length === 0 ? [one].filter((tile) => tile && box(tile)) : many;
  const data = new FormData();
  data.set("action", action);
  data.set("number", number);
  for (const tile of subjects) data.append("image", tile.dataset.key);
  if (subjects.length === 1 && !opened && many.length === 0) step(1);
  return send(form.getAttribute("action"), data); // form.action is the buttons of that name
}

const undo = () => send(undoButton.formAction, new FormData());

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button === undoButton) undo();
  else decide(button.value, form.elements.number.value);
});

// --- one picture up close ---

async function open(tile, address = "") {
  const link = tile?.querySelector(".tile-open");
  const response = await fetch(address || link.href, { headers: { "X-Fragment": "1" } }).catch(() => null);
  if (!response?.ok) {
    showChosen("The details could not be loaded. Try again.");
    return;
  }
  panel.innerHTML = await response.text();
  panel.querySelector(".panel-close").hidden = false;
  opened = tile;
  if (!panel.open) panel.showModal();
}

grid?.addEventListener("click", (event) => {
  const link = event.target.closest(".tile-open");
  if (!link || event.ctrlKey || event.metaKey || event.button) return;
  event.preventDefault();
  open(link.closest(".tile"));
});

panel.addEventListener("click", (event) => {
  if (event.target === panel) panel.close(); // the ground around it
  const near = event.target.closest(".thumbs a");
  if (!near) return;
  event.preventDefault();
  const key = near.pathname.split("/").at(-2);
  open(grid?.querySelector(`.tile[data-key="${key}"]`) ?? null, near.href);
});

panel.addEventListener("submit", async (event) => {
  if (event.target.method !== "post") return;
  event.preventDefault();
  const data = new FormData(event.target);
  data.set("action", event.submitter.value);
  await send(event.target.getAttribute("action"), data);
  panel.close();
});

panel.addEventListener("close", () => {
  const tile = opened;
  opened = null;
  if (tile) box(tile)?.focus();
});

// --- keys ---

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  if (event.target.matches("select, input:not([type=checkbox]), textarea")) return;
  const act = actions(event);
  if (!act) return;
  event.preventDefault();
  act();
});

function actions(event) {
  if (panel.open && !opened) return undefined; // up close is a picture that this page does not have: its buttons decide
  if (/^[1-9]$/.test(event.key)) return () => decide("relabel", event.key);
  if (event.key === "Enter" && event.target.matches(".tile input")) return () => open(focused());
  if (event.key === "Escape" && !panel.open) {
    return () => {
      for (const tile of chosen()) box(tile).checked = false;
      showChosen();
    };
  }
  return {
    j: () => (opened ? turn(1) : step(1)),
    k: () => (opened ? turn(-1) : step(-1)),
    x: () => decide("remove").then(() => opened && panel.close()),
    u: undo,
    "?": () => keys.showModal(),
  }[event.key];
}

/** Show the picture after or before in the panel. */
function turn(by) {
  const all = tiles();
  const next = all[all.indexOf(opened) + by];
  if (next) open(next);
}

// --- the lasso, for a mouse: fingers scroll ---

grid?.addEventListener("pointerdown", (down) => {
  if (down.pointerType !== "mouse" || down.button || down.shiftKey || down.target.closest("a, input")) return;
  const lasso = document.createElement("div");
  lasso.className = "lasso";
  const begun = new Set(chosen());
  const start = { x: down.pageX, y: down.pageY };
  let moved = false;

  const move = (event) => {
    const left = Math.min(start.x, event.pageX);
    const top = Math.min(start.y, event.pageY);
    const width = Math.abs(event.pageX - start.x);
    const height = Math.abs(event.pageY - start.y);
    if (!moved && width + height < LASSO_AFTER) return;
    if (!moved) document.body.append(lasso);
    moved = true;
    Object.assign(lasso.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    const reach = lasso.getBoundingClientRect();
    for (const tile of tiles()) {
      const at = tile.getBoundingClientRect();
      const touches = at.left < reach.right && at.right > reach.left && at.top < reach.bottom && at.bottom > reach.top;
      box(tile).checked = touches || begun.has(tile);
    }
    showChosen();
  };
  const end = () => {
    document.removeEventListener("pointermove", move);
    lasso.remove();
    // The click that ends a lasso would choose the picture under it once more.
    if (moved) grid.addEventListener("click", (event) => event.preventDefault(), { capture: true, once: true });
    if (moved) setTimeout(() => grid.dispatchEvent(new Event("click", { cancelable: true })), 50);
  };
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", end, { once: true });
});

showChosen();
