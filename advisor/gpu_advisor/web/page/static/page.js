// What the page is more with scripts: it stays current without moving the reader, sliders stand beside the numbers of
// the what-if, queries can be copied and advice be snoozed. Without scripts the page is whole, only not renewed.
"use strict";

const REFRESH_MILLISECONDS = 15000;
const PAUSE_MILLISECONDS = 250; // of somebody who moves a slider
const FORM = "what-if";

async function read(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

// Puts in place what changed, section by section; what somebody is in is left alone, and what is open stays open.
function replace(next) {
  const parts = [...document.querySelectorAll("#badges, main > section, #footer")];
  const ids = (from) => [...from.querySelectorAll("main > section")].map((each) => each.id).join();
  if (ids(document) !== ids(next) && !document.getElementById(FORM)) {
    const main = document.getElementById("main");
    if (!main.contains(document.activeElement) || main === document.activeElement) renew(main, next.getElementById("main"));
    return;
  }
  for (const part of parts) {
    const then = part.id && next.getElementById(part.id);
    if (then && !part.contains(document.activeElement)) renew(part, then);
  }
}

function renew(now, then) {
  if (now.dataset.was === then.innerHTML) return;
  const open = [...now.querySelectorAll("details[open]")].map((each) => each.id);
  now.innerHTML = then.innerHTML;
  now.dataset.was = then.innerHTML;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  enhance(now);
}

async function refresh() {
  if (document.hidden || document.getElementById(FORM)) return;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed) return; // somebody is copying a query
  try {
    const next = await read(location.href);
    if (next) replace(next);
    document.getElementById("away").hidden = true;
  } catch {
    document.getElementById("away").hidden = false; // the advisor itself does not answer: say so, keep what is there
  }
}

function enhance(within) {
  for (const pre of within.querySelectorAll("pre.copied")) addCopy(pre);
  for (const form of within.querySelectorAll("form[data-snooze]")) {
    form.hidden = false;
    form.addEventListener("submit", snooze);
  }
}

function addCopy(pre) {
  if (!navigator.clipboard || pre.querySelector(".copy")) return; // only over TLS or on this machine
  const text = pre.textContent;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  pre.append(button);
}

async function snooze(event) {
  event.preventDefault();
  const form = event.target;
  const address = `${document.body.dataset.root}recommendations/${form.dataset.snooze}/snooze`;
  const given = new FormData(form);
  const until = new Date(Date.now() + Number(given.get("hours")) * 3600000).toISOString();
  const request = form.elements.end
    ? { method: "DELETE" }
    : {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ reason: given.get("reason"), until }),
      };
  const said = form.querySelector("output");
  try {
    const answer = await fetch(address, request);
    if (answer.ok) location.reload();
    else said.textContent = (await answer.json()).detail;
  } catch {
    said.textContent = "The advisor does not answer: nothing was changed.";
  }
}

// A slider beside each number, and the answer while they move.
function slide(form) {
  let pause = 0;
  let busy = false;
  let again = false;
  const ask = async () => {
    again = busy; // one question at a time: over a large fleet an answer takes seconds
    if (busy) return;
    busy = true;
    const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
    const next = await read(address).catch(() => null);
    busy = false;
    document.getElementById("away").hidden = next !== null;
    if (next) {
      history.replaceState(null, "", address);
      renew(document.getElementById("answer"), next.getElementById("answer"));
      for (const input of form.querySelectorAll("input[type=number]")) tell(input, next.getElementById(input.id));
    }
    if (again) ask();
  };
  const soon = () => {
    clearTimeout(pause);
    pause = setTimeout(ask, PAUSE_MILLISECONDS);
  };
  for (const number of form.querySelectorAll("input[type=number]")) {
    const slider = document.createElement("input");
    slider.type = "range";
    slider.min = number.dataset.low;
    slider.max = number.dataset.high;
    slider.step = number.dataset.step;
    slider.value = number.value === "" ? number.dataset.low : number.value;
    slider.setAttribute("aria-label", `${number.labels[0].textContent}, slider`);
    slider.addEventListener("input", () => {
      number.value = slider.value;
      soon();
    });
    number.addEventListener("input", () => {
      if (number.value !== "") slider.value = number.value;
      soon();
    });
    number.closest(".field").append(slider);
  }
}

// What is wrong with a field, as the server says it.
function tell(input, then) {
  const field = input.closest(".field");
  field.querySelector(".problem")?.remove();
  input.removeAttribute("aria-invalid");
  const problem = then?.closest(".field").querySelector(".problem");
  if (!problem) return;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", problem.id);
  field.append(document.importNode(problem, true));
}

enhance(document);
const form = document.getElementById(FORM);
if (form) slide(form);
setInterval(refresh, REFRESH_MILLISECONDS);
document.addEventListener("visibilitychange", refresh);
