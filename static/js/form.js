// Add and remove class rows without a round trip. Without scripts the same buttons send the form, and the server does it.

const MOST = 10;
const FEWEST = 2;
const form = document.querySelector("form.form");
const lists = { classes: form.querySelector("[data-rows=classes]"), queries: form.querySelector("[data-rows=queries]") };
const add = form.querySelector("[data-add]");

function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** Give every row of both lists its number, ids and button label again. */
function renumber() {
  for (const [name, list] of Object.entries(lists)) {
    [...list.children].forEach((row, index) => {
      const input = row.querySelector("input");
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
        row.querySelector("[data-remove]")?.setAttribute("aria-label", `Remove class ${index + 1}`);
        row.querySelector("[data-remove]")?.setAttribute("value", String(index));
      } else {
        label.firstChild.textContent = `Class ${index + 1}`;
      }
    });
  }
  add.disabled = lists.classes.children.length >= MOST;
}

/** Show each class's name beside its search words. */
function nameQueries() {
  [...lists.classes.children].forEach((row, index) => {
    const name = row.querySelector("input").value.trim();
    lists.queries.children[index].querySelector("[data-name]").textContent = name ? `: ${name.slice(0, 40)}` : "";
  });
}

add.addEventListener("click", (event) => {
  event.preventDefault();
  if (lists.classes.children.length >= MOST) return;
  lists.classes.append(fromTemplate("class-row"));
  lists.queries.append(fromTemplate("query-row"));
  renumber();
  lists.classes.lastElementChild.querySelector("input").focus();
});

lists.classes.addEventListener("click", (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button) return;
  event.preventDefault();
  const row = button.closest("[data-row]");
  const index = [...lists.classes.children].indexOf(row);
  if (index < FEWEST) return;
  row.remove();
  lists.queries.children[index].remove();
  renumber();
  lists.classes.children[index - 1].querySelector("input").focus();
});

lists.classes.addEventListener("input", nameQueries);

// One press is one submission: the second one of a double click would be a second request.
form.addEventListener("submit", (event) => {
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => delete form.dataset.sent);
