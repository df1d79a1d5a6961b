// Progressive enhancement: refreshes the page in place, filters lists while typing, adds sliders to the what-if form, copy
// buttons and the snooze form. Without scripts the page is complete, but does not refresh.
"use strict";

const REFRESH_MILLISECONDS = 15000;
const PAUSE_MILLISECONDS = 250; // debounce of slider input
const FORM = "what-if";

async function fetchPage(address) {
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  return response.ok ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
}

// Replaces changed sections, except one that has the focus; open <details> stay open.
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
  if (selection && !selection.isCollapsed) return; // the user is copying a query
  if (document.querySelector("form[data-filter] input[type=search]")?.value && location.search === "") return; // a filtered list
  try {
    const next = await fetchPage(location.href);
    if (next) replace(next);
    document.getElementById("away").hidden = true;
  } catch {
    document.getElementById("away").hidden = false;
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
  if (!navigator.clipboard || pre.querySelector(".copy")) return; // needs TLS or localhost
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

// The token of web.write_token_file, which changes need where there is no login; kept until the tab is closed.
function withToken(request) {
  const token = sessionStorage.getItem("write-token");
  return token ? { ...request, headers: { ...request.headers, Authorization: `Bearer ${token}` } } : request;
}

function askForToken() {
  const token = prompt("Token of web.write_token_file, which changes need:")?.trim();
  if (token) sessionStorage.setItem("write-token", token);
  return Boolean(token);
}

async function snooze(event) {
  event.preventDefault();
  const form = event.target;
  const all = form.elements.all;
  const ids = all?.checked ? all.value.split(" ") : [form.dataset.snooze];
  const data = new FormData(form);
  const until = new Date(Date.now() + Number(data.get("hours")) * 3600000).toISOString();
  const request = form.elements.end
    ? { method: "DELETE" }
    : {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ reason: data.get("reason"), until }),
      };
  const output = form.querySelector("output");
  try {
    for (const id of ids) {
      const address = `${document.body.dataset.root}recommendations/${id}/snooze`;
      let response = await fetch(address, withToken(request));
      if (response.status === 401 && askForToken()) response = await fetch(address, withToken(request));
      if (!response.ok) {
        output.textContent = (await response.json()).detail;
        return;
      }
    }
    location.reload();
  } catch {
    output.textContent = "The advisor is unreachable: nothing was changed.";
  }
}

// Adds a slider to each number input, and updates the result on input.
function addSliders(form) {
  let pause = 0;
  let busy = false;
  let again = false;
  const update = async () => {
    again = busy; // one request at a time: on a large fleet it takes seconds
    if (busy) return;
    busy = true;
    const address = `${form.action.split("#")[0]}?${new URLSearchParams(new FormData(form))}`;
    const next = await fetchPage(address).catch(() => null);
    busy = false;
    document.getElementById("away").hidden = next !== null;
    if (next) {
      history.replaceState(null, "", address);
      renew(document.getElementById("answer"), next.getElementById("answer"));
      for (const input of form.querySelectorAll("input[type=number]")) {
        const then = next.getElementById(input.id);
        showProblem(input, then);
        showNote(input, then);
      }
    }
    if (again) update();
  };
  const soon = () => {
    clearTimeout(pause);
    pause = setTimeout(update, PAUSE_MILLISECONDS);
  };
  for (const number of form.querySelectorAll("input[type=number]")) {
    const slider = document.createElement("input");
    slider.type = "range";
    slider.min = number.dataset.low;
    slider.max = number.dataset.high;
    slider.step = number.dataset.step;
    placeSlider(slider, number);
    slider.setAttribute("aria-label", `${number.labels[0].textContent}, slider`);
    slider.addEventListener("input", () => {
      number.value = slider.value;
      soon();
    });
    number.addEventListener("input", () => {
      placeSlider(slider, number);
      soon();
    });
    number.closest(".field").append(slider);
  }
}

// An empty field's slider stands at what applies then; without such a value it is hidden.
function placeSlider(slider, number) {
  const value = number.value === "" ? number.placeholder : number.value;
  slider.hidden = value === "";
  if (value !== "") slider.value = value;
}

// What applies while a field is empty may depend on other fields.
function showNote(input, then) {
  if (!then) return;
  const field = input.closest(".field");
  field.querySelector(".note").textContent = then.closest(".field").querySelector(".note").textContent;
  input.placeholder = then.placeholder;
  placeSlider(field.querySelector("input[type=range]"), input);
}

// Shows the server's validation message of a field.
function showProblem(input, then) {
  const field = input.closest(".field");
  field.querySelector(".problem")?.remove();
  input.removeAttribute("aria-invalid");
  const problem = then?.closest(".field").querySelector(".problem");
  if (!problem) return;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", problem.id);
  field.append(document.importNode(problem, true));
}

// Filters a list while the user types: the server's response replaces the results in place.
function filterAsYouType(form) {
  let pause = 0;
  let asked = 0;
  const update = async () => {
    const number = ++asked;
    const address = new URL(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`, location.href);
    const next = await fetchPage(address).catch(() => null);
    document.getElementById("away").hidden = next !== null;
    const results = next?.getElementById(form.dataset.filter);
    if (!results || number !== asked) return; // a later request is under way
    for (const link of results.querySelectorAll("a[href]")) link.href = new URL(link.getAttribute("href"), address).href;
    document.getElementById(form.dataset.filter).innerHTML = results.innerHTML;
    if (location.pathname === address.pathname) history.replaceState(null, "", address);
  };
  form.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(update, PAUSE_MILLISECONDS);
  });
}

for (const each of document.querySelectorAll("form[data-filter]")) filterAsYouType(each);
enhance(document);
const form = document.getElementById(FORM);
if (form) addSliders(form);
setInterval(refresh, REFRESH_MILLISECONDS);
document.addEventListener("visibilitychange", refresh);
