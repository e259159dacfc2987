// A click on an arm's name, anywhere, chooses the arm: it is shown alone, or together with the others that are chosen.
const chosen = new Map(); // the keys of the chosen arms, by data set

function partOf(element) {
  return element.closest("[data-of]").dataset.of;
}

function choose(of, key) {
  const keys = chosen.get(of);
  if (key === null) keys.clear();
  else if (!keys.delete(key)) keys.add(key);
  for (const part of document.querySelectorAll(`[data-of="${of}"]`)) {
    for (const one of part.querySelectorAll("[data-arm]")) {
      const on = keys.has(one.dataset.arm);
      one.classList.toggle("chosen", on);
      if (one.hasAttribute("aria-pressed")) one.setAttribute("aria-pressed", on);
    }
    for (const button of part.querySelectorAll(".everyone")) button.hidden = keys.size === 0;
    const mistaken = [...part.querySelectorAll("details[data-arm]")];
    const isAny = mistaken.some((one) => keys.has(one.dataset.arm));
    for (const one of mistaken) {
      one.hidden = isAny && !keys.has(one.dataset.arm);
      one.open ||= isAny && !one.hidden;
    }
    for (const mark of part.querySelectorAll(".arm")) {
      const own = [...mark.classList].find((name) => name.startsWith("arm-")).slice(4);
      mark.classList.toggle("faded", keys.size > 0 && !keys.has(own));
    }
    for (const chart of part.querySelectorAll(".chart")) chart.dispatchEvent(new Event("chosen"));
  }
}

for (const group of document.querySelectorAll(".choices")) group.hidden = false;
for (const part of document.querySelectorAll("[data-of]")) {
  chosen.set(part.dataset.of, new Set());
  for (const button of part.querySelectorAll("[data-arm][aria-pressed]")) {
    button.addEventListener("click", () => choose(part.dataset.of, button.dataset.arm));
  }
  for (const name of part.querySelectorAll(".name")) {
    name.setAttribute("role", "button");
    name.tabIndex = 0;
    name.setAttribute("aria-pressed", "false");
    name.addEventListener("click", () => choose(part.dataset.of, name.dataset.arm));
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(part.dataset.of, name.dataset.arm);
    });
  }
  for (const button of part.querySelectorAll(".everyone")) button.addEventListener("click", () => choose(part.dataset.of, null));
}
