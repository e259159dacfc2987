"use strict";

// Filters and enlarged epochs are kept in the address, behind the place on the page: #d1-arms&d1-table=norm%3Dgbn&d1=3-8
const kept = new Map(location.hash.slice(1).split("&").slice(1).map((part) => part.split("=").map(decodeURIComponent)));

function place() {
  return location.hash.slice(1).split("&")[0];
}

function keep(name, value) {
  if (value === "") kept.delete(name);
  else kept.set(name, value);
  writeAddress();
}

function writeAddress() {
  const rest = [...kept].map(([name, value]) => `&${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("");
  if (`#${place()}${rest}` !== (location.hash || "#")) history.replaceState(null, "", `#${place()}${rest}`);
}

// A link unfolds whatever hides its target.
function reveal() {
  const target = place() === "" ? null : document.getElementById(place());
  for (let part = target?.parentElement; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  const within = target?.querySelector(":scope > .table-details");
  if (within) within.open = true;
  target?.scrollIntoView();
}

window.addEventListener("hashchange", () => {
  writeAddress();
  reveal();
});
if (place() !== "") window.addEventListener("load", reveal);
