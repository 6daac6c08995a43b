"use strict";
// The console works without this file, but for live figures, keys and the choice of light or dark.

const THEME = "headrace-theme";

function darkNow() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function kept() {
  try { return localStorage.getItem(THEME); } catch { return null; }
}

function toggleTheme() {
  const chosen = darkNow() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try { localStorage.setItem(THEME, chosen); } catch { /* A browser that keeps nothing asks its system again. */ }
}

// Before the first paint, so that a dark page never flashes white.
if (["light", "dark"].includes(kept())) document.documentElement.dataset.theme = kept();

function typing(target) {
  return target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName);
}

let afterG = 0;

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const page = Date.now() - afterG < 1500 && document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
  afterG = 0;
  if (page) { page.click(); return; }
  switch (event.key) {
    case "g": afterG = Date.now(); break;
    case "t": toggleTheme(); break;
    case "?": document.getElementById("keys").showModal(); break;
    case "/": {
      event.preventDefault();
      const field = document.querySelector("input[type=search]");
      if (field) { field.focus(); field.select(); } else location.assign("/search");
    }
  }
}

// A part of a page that has not changed is not sent again, so that a reader keeps place and focus.
function onPoll(event) {
  const element = event.detail.elt;
  if (document.hidden && element.getAttribute("hx-trigger")?.startsWith("every")) event.preventDefault();
  else if (element.dataset.seen) event.detail.parameters.append("seen", element.dataset.seen);
}

function onAnswer(event) {
  document.getElementById("lost").hidden = true;
  const seen = event.detail.xhr.getResponseHeader("x-headrace-seen");
  if (seen) event.detail.elt.dataset.seen = seen;
}

document.addEventListener("DOMContentLoaded", () => {
  document.addEventListener("keydown", onKey);
  document.querySelector("[data-theme-toggle]").addEventListener("click", toggleTheme);
  document.querySelector("[data-help]").addEventListener("click", () => document.getElementById("keys").showModal());
  document.body.addEventListener("htmx:configRequest", onPoll);
  document.body.addEventListener("htmx:afterOnLoad", onAnswer);
  document.body.addEventListener("htmx:sendError", () => { document.getElementById("lost").hidden = false; });
});
