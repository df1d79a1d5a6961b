// Keeps the page current without moving the reader: the parts that changed are put in place every 15 seconds.
// Without scripts the page is whole, only not renewed.
"use strict";

const REFRESH_MILLISECONDS = 15000;

async function refresh() {
  if (document.hidden) return;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed) return; // somebody is copying a query
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const selector of [".badges", "main", "footer"]) {
      const now = document.querySelector(selector);
      const then = next.querySelector(selector);
      const focused = now.contains(document.activeElement);
      if (now.innerHTML !== then.innerHTML && !focused) now.innerHTML = then.innerHTML;
    }
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away"); // the advisor itself does not answer: say so, keep what is there
  }
}

setInterval(refresh, REFRESH_MILLISECONDS);
document.addEventListener("visibilitychange", refresh);
