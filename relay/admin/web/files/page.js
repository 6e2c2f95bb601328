"use strict";
// What the page does beyond HTML; everything but this works without it. It says when the
// relay is away and comes back by itself, copies a summary, and selects all of a list.
(() => {
  for (const b of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    b.hidden = false;
    b.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(b.dataset.copy).value);
      document.getElementById("copied").textContent = "Copied.";
    });
  }

  for (const t of document.querySelectorAll("table[data-pick]")) {
    const boxes = t.querySelectorAll("input[name=item]"), head = t.querySelector("th.pick");
    if (!boxes.length || !head) continue;
    const every = document.createElement("input");
    every.type = "checkbox";
    every.setAttribute("aria-label", "Select all on this page");
    every.addEventListener("change", () => boxes.forEach((b) => { b.checked = every.checked; }));
    head.replaceChildren(every);
  }

  const away = document.getElementById("away");
  if (!document.body.hasAttribute("data-live") || !away) return;
  let gone = false;
  const look = async () => {
    if (document.hidden) return;
    let here = false;
    try {
      here = (await fetch("icon.svg", {method: "HEAD", cache: "no-store"})).ok;
    } catch { /* it is away */ }
    if (here && gone) location.reload();
    gone = !here;
    away.hidden = here;
  };
  setInterval(look, 5000);
})();
