// “Wrong? Say what it shows”: sends a picture with its right class, and only on that click.

/**
 * @param answers the section with the answers
 * @param page what the page gives: post(address, body) sends; givenOf returns {file} or {url} of an answer, nothing for
 *   one that the server has put there; say tells it to those who listen
 */
export function bindCorrections(answers, page) {
  answers.addEventListener("submit", async (event) => {
    const form = event.target;
    const given = page.givenOf(form.closest(".answer"));
    if (!given) return; // the form carries the picture itself
    event.preventDefault();
    const body = new FormData(form);
    body.set("number", event.submitter.value);
    if (given.file) body.set("picture", given.file, given.file.name || "picture");
    else body.set("url", given.url);
    await send(form, body, page);
  });
  answers.addEventListener("click", async (event) => {
    const button = event.target.closest(".correct-after button");
    if (!button) return;
    const form = button.closest(".correct").querySelector("form");
    const body = new FormData();
    body.set("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
    body.set("take_back", button.value);
    await send(form, body, page);
  });
}

async function send(form, body, { post, say }) {
  const part = form.closest(".correct");
  const buttons = part.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  const answer = await post(form.getAttribute("action"), body);
  for (const button of buttons) button.disabled = false;
  const said = part.querySelector(".correct-said");
  said.textContent = answer.problem ?? answer.sentence;
  said.classList.toggle("complaint", !answer.is_done);
  said.hidden = false;
  say(said.textContent);
  if (!answer.is_done) return;
  const isAdded = Boolean(answer.take_back);
  form.hidden = isAdded;
  part.querySelector(".correct-after").hidden = !isAdded;
  part.querySelector(".correct-after button").value = answer.take_back ?? "";
}
