"use strict";
// The page's behaviour: choosing, ticking, rating, sorting, and going from task to task. Nothing is sent or stored.
const sections = [...document.querySelectorAll("main section")];
let place = 0;

function go(to) {
  place = Math.max(0, Math.min(sections.length - 1, to));
  sections.forEach((section, number) => { section.hidden = number !== place; });
  document.getElementById("place").textContent = `${sections.length ? place + 1 : 0} of ${sections.length}`;
  document.getElementById("previous").disabled = place <= 0;
  document.getElementById("next").disabled = place >= sections.length - 1;
}

function choose(side) {
  const section = side.closest("section");
  const chosen = side.getAttribute("aria-pressed") === "true";
  for (const other of section.querySelectorAll("[data-side]")) {
    if (other.dataset.pairwise !== side.dataset.pairwise) continue;
    const now = other === side && !chosen; // a second click takes it back
    other.setAttribute("aria-pressed", String(now));
    other.setAttribute("style", now ? other.dataset.selection : "border: 1px solid transparent; border-radius: 2px;");
  }
}

function ticked(input) {
  const group = input.closest("[data-choices]");
  if (input.type === "radio" && input.checked)
    for (const other of group.querySelectorAll("input")) if (other !== input) other.checked = false;
  conditions(input.closest("section"));
}

function conditions(section) {
  for (const part of section.querySelectorAll("[data-when]")) {
    const wanted = part.dataset.whenChoice.split(",").filter(Boolean);
    const groups = [...section.querySelectorAll("[data-choices]")]
      .filter(group => !part.dataset.whenTag || group.dataset.choices === part.dataset.whenTag);
    const met = groups.some(group => [...group.querySelectorAll("input:checked")].some(
      input => !wanted.length || wanted.includes(input.dataset.value) || wanted.includes(input.dataset.alias)));
    part.hidden = met !== (part.dataset.when === "choice-selected");
  }
}

function rate(star) {
  const stars = [...star.closest("ul").children];
  const count = stars.indexOf(star.closest("li")) + 1;
  stars.forEach((item, number) => {
    item.className = `ant-rate-star ant-rate-star-${number < count ? "full" : "zero"}`;
    item.querySelector("button").textContent = number < count ? "\u2605" : "\u2606";
  });
}

function move(card, step) {
  const columns = [...card.closest(".preview-board").querySelectorAll(".preview-drop")];
  const to = columns[columns.indexOf(card.parentElement) + step];
  if (to) { to.append(card); card.focus(); }
}

document.addEventListener("click", event => {
  const side = event.target.closest("[data-side]");
  if (side && !event.target.closest("a")) choose(side);
  const star = event.target.closest(".ant-rate button");
  if (star) rate(star);
});
document.addEventListener("change", event => { if (event.target.closest("[data-choices]")) ticked(event.target); });
document.addEventListener("keydown", event => {
  if (event.target.matches("[data-side]") && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(event.target);
  } else if (event.target.matches(".htx-ranker-item") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    event.preventDefault();
    move(event.target, event.key === "ArrowLeft" ? -1 : 1);
  } else if (!event.target.matches("textarea, input[type=number]") && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const input = [...sections[place].querySelectorAll("input[data-key]")].find(found => found.dataset.key === event.key.toLowerCase());
    if (input) { input.checked = input.type === "radio" || !input.checked; ticked(input); }
  }
});

let carried = null;
document.addEventListener("dragstart", event => { carried = event.target.closest?.(".htx-ranker-item"); });
document.addEventListener("dragover", event => { if (carried && event.target.closest(".htx-ranker-column")) event.preventDefault(); });
document.addEventListener("drop", event => {
  const column = event.target.closest(".htx-ranker-column");
  if (carried && column && column.closest(".preview-board") === carried.closest(".preview-board")) {
    event.preventDefault();
    column.querySelector(".preview-drop").append(carried);
  }
  carried = null;
});

document.getElementById("previous").addEventListener("click", () => go(place - 1));
document.getElementById("next").addEventListener("click", () => go(place + 1));
document.getElementById("scheme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.colorScheme = root.dataset.colorScheme === "dark" ? "light" : "dark";
});
sections.forEach(conditions);
go(0);
