// A page of its own, from a server or a file.
import { ofBrowser } from "./address.js";
import { opened } from "./kept.js";
import { mount } from "./page.js";
import { served } from "./source.js";

// A notebook, where this is loaded too, gives the headings that it shows names as well.
const root = document.querySelector("body > #pellucid");
if (root) start().catch((error) => { root.textContent = `Pellucid: ${error.message}.`; });

async function start() {
  const address = ofBrowser();
  const file = document.getElementById("kept");
  const found = file && (await opened(file));
  if (found && !address.said) address.keep(found.address);
  await mount(root, found ? found.source : served(), address, (title) => { document.title = `${title} — Pellucid`; });
}
