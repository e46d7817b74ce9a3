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

// Pairwise: one of two texts, or none. Without a selectionStyle the editor shows the choice by classes of its own.
function mark(side, chosen) {
  side.setAttribute("aria-pressed", String(chosen));
  if (side.dataset.selection === undefined) {
    side.classList.add("border");
    side.classList.toggle("border-transparent", !chosen);
    for (const name of ["bg-primary-background", "border-primary-border-subtle"]) side.classList.toggle(name, chosen);
  } else {
    side.style.cssText = chosen ? side.dataset.selection : "border: 1px solid transparent; border-radius: 0.125rem;";
  }
}

function choose(side) {
  const chosen = side.getAttribute("aria-pressed") !== "true"; // a second click takes it back
  for (const other of side.closest("section").querySelectorAll("[data-side]"))
    if (other.dataset.pairwise === side.dataset.pairwise) mark(other, other === side && chosen);
}

// Choices: what is ticked, what that unticks, and what it shows or hides.
const selected = group => [...group.querySelectorAll("input:checked, option:checked")].filter(found => found.dataset.value !== undefined);

function ticked(input) {
  const group = input.closest("[data-choices]");
  if (input.matches("input")) {
    const below = input.closest(".lsf-choice").querySelectorAll(".lsf-choice__children input");
    for (const child of below) child.checked = input.checked;
    if (input.checked && group.dataset.single !== undefined)
      for (const other of group.querySelectorAll("input"))
        if (other !== input && ![...below].includes(other)) other.checked = false;
  }
  refresh(input.closest("section"));
}

function met(part, section) {
  const { when, whenTag, whenChoice } = part.dataset;
  const groups = [...section.querySelectorAll("[data-choices]")];
  const stored = found => found.dataset.alias || found.dataset.value;
  if (when === "choice-value") return groups.some(group => selected(group).some(found => stored(found) === whenChoice));
  const named = groups.filter(group => !whenTag || (group.dataset.choices === whenTag && !group.closest("[hidden] *")));
  const wanted = whenTag && whenChoice ? whenChoice.split(",") : null;
  const found = named.some(group => !(whenTag && group.hidden) && selected(group).some(
    choice => !wanted || wanted.includes(choice.dataset.value) || wanted.includes(choice.dataset.alias)));
  return found === (when === "choice-selected");
}

function refresh(section) {
  for (const input of section.querySelectorAll("[data-choices] input")) {
    const kind = `ant-${input.type}`;
    input.parentElement.classList.toggle(`${kind}-checked`, input.checked);
    input.closest("label").classList.toggle(`${kind}-wrapper-checked`, input.checked);
  }
  const parts = [...section.querySelectorAll("[data-when]")];
  for (let again = true, turns = 0; again && turns <= parts.length; turns += 1) { // one may depend on what another hides
    again = false;
    section.hidden = false;
    for (const part of parts) {
      const hidden = !met(part, section);
      again ||= hidden !== part.hidden;
      part.hidden = hidden;
    }
  }
  section.hidden = sections.indexOf(section) !== place;
}

function rate(row, count) {
  [...row.children].forEach((item, number) => {
    item.className = `ant-rate-star ant-rate-star-${number < count ? "full" : "zero"}`;
    item.firstElementChild.setAttribute("aria-checked", String(number + 1 === count));
  });
}

const stars = row => row.querySelectorAll(".ant-rate-star-full").length;

// Cards: from column to column, and up and down in one.
function move(card, key) {
  const columns = [...card.closest(".board--preview").querySelectorAll(".dropArea--preview")];
  const to = columns[columns.indexOf(card.parentElement) + { ArrowLeft: -1, ArrowRight: 1 }[key]];
  if (to) to.append(card);
  if (key === "ArrowUp") card.previousElementSibling?.before(card);
  if (key === "ArrowDown") card.nextElementSibling?.after(card);
  card.focus();
}

function pressed(written, event) {
  return written.split(",").some(combination => {
    const parts = combination.trim().split("+");
    const key = { space: " ", esc: "escape", up: "arrowup", down: "arrowdown", left: "arrowleft", right: "arrowright" }[parts.at(-1)] ?? parts.at(-1);
    const held = name => parts.slice(0, -1).includes(name);
    return key !== "" && key === event.key.toLowerCase() && held("ctrl") === event.ctrlKey && held("alt") === event.altKey
      && (held("command") || held("cmd")) === event.metaKey && (held("shift") === event.shiftKey || /^[^a-z0-9]$/.test(key));
  });
}

function hotkey(event) {
  for (const found of sections[place]?.querySelectorAll("[data-key]") ?? []) {
    if (!found.dataset.key || !pressed(found.dataset.key, event)) continue;
    event.preventDefault();
    if (found.matches(".ant-rate")) return rate(found, (stars(found) + 1) % (found.children.length + 1));
    found.checked = found.type === "radio" || !found.checked;
    return ticked(found);
  }
}

document.addEventListener("click", event => {
  const side = event.target.closest("[data-side]");
  if (side && !event.target.closest("a")) choose(side);
  const star = event.target.closest(".ant-rate[role] .ant-rate-star");
  if (star) {
    const row = star.parentElement, count = [...row.children].indexOf(star) + 1;
    rate(row, count === stars(row) ? 0 : count);
  }
  const add = event.target.closest(".preview-add button");
  const field = add?.closest(".lsf-text-area").querySelector(".ant-input");
  if (field?.value) {
    const line = document.createElement("p");
    line.textContent = field.value;
    add.parentElement.prepend(line);
    field.value = "";
  }
});
document.addEventListener("change", event => { if (event.target.closest("[data-choices]")) ticked(event.target); });
document.addEventListener("submit", event => event.preventDefault());
document.addEventListener("input", event => {
  const shown = event.target.matches("[type=range]") && event.target.nextElementSibling;
  if (shown) shown.textContent = event.target.value;
});
document.addEventListener("keydown", event => {
  const on = event.target, enter = event.key === "Enter" || event.key === " ";
  const row = on.closest?.(".ant-rate"), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (on.matches("[data-side]") && enter) choose(on);
  else if (on.matches(".htx-ranker-item[draggable]") && event.key.startsWith("Arrow")) move(on, event.key);
  else if (row && step) rate(row, Math.max(0, Math.min(row.children.length, stars(row) + step)));
  else if (!on.matches("textarea, select, input:not([type=radio], [type=checkbox])")) return hotkey(event);
  else return undefined;
  event.preventDefault();
});

let carried = null;
document.addEventListener("dragstart", event => { carried = event.target.closest?.(".htx-ranker-item"); });
document.addEventListener("dragover", event => { if (carried && event.target.closest?.(".htx-ranker-column")) event.preventDefault(); });
document.addEventListener("drop", event => {
  const column = event.target.closest?.(".htx-ranker-column");
  if (carried && column && column.closest(".board--preview") === carried.closest(".board--preview")) {
    event.preventDefault();
    const cards = [...column.querySelectorAll(".htx-ranker-item")].filter(card => card !== carried);
    const next = cards.find(card => event.clientY < card.getBoundingClientRect().top + card.offsetHeight / 2);
    if (next) next.before(carried); else column.querySelector(".dropArea--preview").append(carried);
  }
  carried = null;
});
for (const item of document.querySelectorAll("details[data-accordion]"))
  item.addEventListener("toggle", () => {
    if (item.open) for (const other of item.parentElement.children) if (other !== item) other.open = false;
  });

document.getElementById("previous").addEventListener("click", () => go(place - 1));
document.getElementById("next").addEventListener("click", () => go(place + 1));
document.getElementById("scheme").addEventListener("click", event => {
  const root = document.documentElement, dark = root.dataset.colorScheme !== "dark";
  root.dataset.colorScheme = dark ? "dark" : "light";
  event.currentTarget.setAttribute("aria-pressed", String(dark));
});
for (const side of document.querySelectorAll("[data-side]")) mark(side, false);
sections.forEach(refresh);
go(0);
