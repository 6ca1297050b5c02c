// A page of its own, from a server or a file.
import { serverSource } from "./data_source.js";
import { openOfflineSource } from "./offline_source.js";
import { mount } from "./page.js";
import { browserUrl } from "./url_state.js";

// A notebook, where this is loaded too, gives the headings that it shows names as well.
const root = /** @type {HTMLElement | null} */ (document.querySelector("body > #pellucid"));
if (root) start(root).catch((error) => { root.textContent = `Pellucid: ${error.message}.`; });

/** @param {HTMLElement} root */
async function start(root) {
  const address = browserUrl();
  const file = document.getElementById("data");
  const found = file && (await openOfflineSource(file));
  if (found && !address.hash) address.replace(found.address);
  await mount(root, found ? found.source : serverSource(), address, (title) => { document.title = `${title} — Pellucid`; });
}
