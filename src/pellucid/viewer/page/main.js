// The page: which view is shown, and what all of them need.
import * as address from "./address.js";
import { json } from "./api.js";
import { overview } from "./overview.js";
import { map } from "./map.js";
import { text } from "./text.js";
import { made } from "./parts.js";

const VIEWS = { overview, map, text };
const [view, controls, status] = ["view", "controls", "status"].map((id) => document.getElementById(id));
let shown = new AbortController();

/** Tell people in the line below; screen readers say it too. */
function say(words) {
  if (status.textContent !== words) status.textContent = words;
}

function complain(error) {
  if (error.name === "AbortError") return;
  view.replaceChildren(made("p", { className: "complaint", textContent: `Pellucid: ${error.message}.` }));
}

async function show(about) {
  shown.abort();
  shown = new AbortController();
  const { view: name, asked } = address.read();
  const draw = VIEWS[name] ?? overview;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.getAttribute("href").split("?")[0] === `#${draw.name}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.replaceChildren();
  controls.replaceChildren();
  say("");
  try {
    await draw({ about, asked, view, controls, say, signal: shown.signal, complain });
  } catch (error) {
    complain(error);
  }
}

try {
  const about = await json("about");
  document.title = `${about.title} — Pellucid`;
  document.getElementById("title").textContent = about.title;
  addEventListener("hashchange", () => show(about));
  await show(about);
} catch (error) {
  complain(error);
}
