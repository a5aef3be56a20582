"use strict";

// The page is complete without this file; with it, the sections that changed are replaced every few seconds.
const main = document.getElementById("main");
const told = document.getElementById("told");
const seconds = Number(document.body.dataset.refresh);

const open = (root) => [...root.querySelectorAll("details[open][id]")].map((item) => item.id);
const places = (root) => [...root.querySelectorAll(".scroll")].map((item) => item.scrollLeft);

function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const same = focused && [...old.querySelectorAll("a, summary, [tabindex]")].indexOf(focused);
  const opened = open(old);
  const scrolled = places(old);
  old.replaceWith(fresh);
  opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  fresh.querySelectorAll(".scroll").forEach((item, index) => { item.scrollLeft = scrolled[index] || 0; });
  if (focused) fresh.querySelectorAll("a, summary, [tabindex]")[same]?.focus({ preventScroll: true });
}

function withoutState(section) {
  const copy = section.cloneNode(true);
  copy.querySelectorAll("details").forEach((item) => item.removeAttribute("open"));
  return copy.outerHTML;
}

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const before = document.getElementById("verdict-title").textContent.trim();
  const sections = [...fresh.querySelectorAll("section[id]")];
  const known = [...main.querySelectorAll("section[id]")];
  if (sections.map((item) => item.id).join() !== known.map((item) => item.id).join()) {
    main.replaceChildren(...fresh.body.childNodes);
  } else {
    known.forEach((old, index) => {
      if (withoutState(old) !== withoutState(sections[index])) replace(old, sections[index]);
    });
  }
  const after = document.getElementById("verdict-title").textContent.trim();
  const count = document.querySelectorAll(".findings li").length;
  document.title = (count ? `(${count}) ` : "") + "Status of twm";
  if (after !== before) told.textContent = after;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/fragment", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.text());
    if (document.body.classList.contains("stale")) told.textContent = "The page is up to date again.";
    document.body.classList.remove("stale");
  } catch {
    if (!document.body.classList.contains("stale")) told.textContent = "The page is no longer updated: it does not answer.";
    document.body.classList.add("stale");
  }
}

document.body.classList.add("scripted");
setInterval(refresh, 1000 * seconds);
document.addEventListener("visibilitychange", refresh);
