// The question which group of a class is meant: the search words follow what is chosen, until a person writes their own.

const field = (form) => form.querySelector("input[data-words].input");

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-meaning] input.input")) event.target.dataset.own = "";
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("[data-meaning]");
  if (form === null || event.target.name !== "group") return;
  const words = field(form);
  const chosen = [...form.querySelectorAll("input[name=group]:checked")];
  if (words === null || "own" in words.dataset) return;
  words.value = chosen.length === 1 ? chosen[0].dataset.words : words.defaultValue;
});
