// The frame around the views: navigation, export menu, theme and status line.
import { ablate } from "./ablate.js";
import { askForm } from "./ask.js";
import { compare } from "./compare.js";
import { cachedSource } from "./data_source.js";
import { button, createElement } from "./elements.js";
import { csvOf, download, exporters } from "./export_formats.js";
import { generation } from "./generation.js";
import { landing } from "./landing.js";
import { learn } from "./learn.js";
import { lesson } from "./lesson.js";
import { links } from "./links.js";
import { map } from "./map.js";
import { overview } from "./overview.js";
import { text } from "./text.js";
import { themeOf } from "./theme.js";
import { formatState, parseState } from "./url_state.js";

const VIEWS = { overview, map, compare, text, links, generation, ablate, lesson, learn }; // the names on the page are these, capitalised
const WITHOUT_TEXT = ["lesson", "learn"]; // views that have something to show before a text is read

/**
 * Fill an element with the page.
 * @param {HTMLElement} root
 * @param {Source} from
 * @param {Url} address
 * @param {(title: string) => void} entitle
 * @param {AbortSignal} ended aborted when the page is closed
 */
export async function mount(root, from, address, entitle = () => {}, ended = new AbortController().signal) {
  let source = cachedSource(from);
  const title = createElement("h1", { dir: "auto" });
  const model = createElement("p", { className: "model" });
  // A file holds no stations, apart from those that were open when it was saved.
  const names = Object.keys(VIEWS).filter((name) => name !== "learn" || source.code || parseState(address.hash).view === name);
  const tabs = names.map((name) => {
    const element = createElement("a", { textContent: name[0].toUpperCase() + name.slice(1), href: `#${name}` });
    element.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      Object.assign(kept, shared(parseState(address.hash).params));
      address.go(formatState(name, kept));
    });
    return element;
  });
  const controls = createElement("div", { className: "controls" });
  const view = createElement("main", { tabIndex: -1 });
  const status = createElement("p", { className: "status", data: { role: "status", "aria-live": "polite" } });
  const theme = themeOf(root, ended);
  const toggle = button("◐", "Switch between light and dark", () => theme.toggle());
  const menu = createElement("details", { className: "export" }, createElement("summary", { textContent: "Export" }));
  /** The head and the word that were chosen last, for views that do not say. @type {UrlState} */
  let kept = {};
  const { read } = from;
  const ask = read && askForm(async (asked, signal) => {
    await read(asked, signal);
    source = cachedSource(from);
    await open(true);
  }, setStatus);
  root.classList.add("pellucid");
  root.replaceChildren(
    createElement("header", {}, title, model, createElement("nav", { data: { "aria-label": "Views" } }, ...tabs),
      createElement("div", { className: "tools" }, ...(ask ? [ask.toggle] : []), menu, toggle), ...(ask ? [ask.form] : []), controls),
    view, status,
  );
  let shown = new AbortController();
  /** @type {Exportable} */
  let exportable = { csv: noNumbers };
  ended.addEventListener("abort", () => shown.abort());

  /** Write into the status line, which screen readers announce. @param {string} message */
  function setStatus(message) {
    if (status.textContent !== message) status.textContent = message;
  }
  const showError = (error) => {
    if (error.name === "AbortError") return;
    view.replaceChildren(createElement("p", { className: "complaint", textContent: `Pellucid: ${error.message}.` }));
  };

  /** @param {About} about */
  function fillMenu(about) {
    const name = () => `${title.textContent} ${parseState(address.hash).view}`.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
    /** @type {Record<string, () => Promise<void>>} */
    const ways = {
      PNG: async () => download(`${name()}.png`, await exporters.png(view, theme)),
      SVG: async () => download(`${name()}.svg`, exporters.svg(view, theme)),
      CSV: async () => download(`${name()}.csv`, csvOf(await exportable.csv())),
      HTML: async () => download(`${name()}.html`, await exporters.html(source, exportable, address.hash, about.title)),
    };
    if (!source.code) delete ways.HTML; // this page is a file already
    const titles = { PNG: "image", SVG: "vector image", CSV: "the numbers shown", HTML: "standalone page, works offline", JSON: "for pellucid explain --from", Notebook: "runs as it is", Slides: "an HTML file" };
    // What this view alone can write.
    const own = () => ({
      ...(exportable.json ? { JSON: async () => download(`${name()}.json`, exportable.json?.() ?? "") } : {}),
      ...Object.fromEntries(Object.entries(exportable.files ?? {}).map(([way, file]) => [way, async () => download(...await file())])),
    });
    const entry = ([way, call]) => button(way, `Export as ${way}: ${titles[way]}`, async () => {
      menu.open = false;
      setStatus(`Exporting ${way} …`);
      try {
        await call();
        setStatus(`${way} saved`);
      } catch (error) {
        setStatus(`Export failed: ${error.message}`);
      }
    });
    const list = createElement("div", {});
    menu.querySelector("div")?.remove();
    menu.append(list);
    menu.ontoggle = () => list.replaceChildren(...Object.entries({ ...ways, ...own() }).map(entry));
  }

  /** @param {About} about */
  async function show(about) {
    shown.abort();
    shown = new AbortController();
    const { signal } = shown;
    let own = address.hash;
    const { view: wanted, params } = parseState(address.hash);
    const name = names.includes(wanted) ? wanted : "overview";
    for (const [i, one] of names.entries()) {
      if (one === name) {
        tabs[i].setAttribute("aria-current", "page");
        tabs[i].scrollIntoView({ block: "nearest", inline: "nearest" }); // of the strip of a phone
      } else tabs[i].removeAttribute("aria-current");
    }
    view.replaceChildren();
    controls.replaceChildren();
    source.clear();
    exportable = { csv: noNumbers };
    setStatus("");
    if (!about.layers.length && !WITHOUT_TEXT.includes(name)) {
      ask?.show(true);
      view.append(createElement("p", { className: "nothing", textContent: "Type a text above: a model of your choice reads it, and every weight of its attention is shown here." }));
      setStatus("No text so far");
      return;
    }
    try {
      await VIEWS[name]({
        about, source, params, view, controls, signal, setStatus,
        theme: theme.until(signal),
        go: (to, state) => address.go(formatState(to, state)),
        // The address may be another view's already, of which the browser tells only in a moment.
        saveState: (state) => {
          if (signal.aborted || address.hash !== own) return;
          address.replace(formatState(name, state));
          own = address.hash;
        },
        setExport: (some) => { if (!signal.aborted) Object.assign(exportable, some); },
      });
    } catch (error) {
      if (!signal.aborted) showError(error);
    }
  }

  /** Ask what there is to show, and show it. @param {boolean} isNew whether the page has just had it read */
  async function open(isNew = false) {
    const about = await source.json("about");
    const models = [...new Set(about.recordings.map((one) => one.model))].join(", ");
    entitle(about.title || "A text of yours");
    title.textContent = title.title = about.title;
    model.textContent = model.title = models;
    ask?.fill(about, WITHOUT_TEXT.includes(parseState(address.hash).view));
    fillMenu(about);
    shownNow = about;
    if (isNew) kept = {};
    if (isNew || !address.hash) address.replace(await landing(about, source, isNew));
    await show(about);
  }

  /** @type {About | undefined} */
  let shownNow;
  address.onChange(() => { if (shownNow) show(shownNow); });
  try {
    await open();
  } catch (error) {
    showError(error);
  }
}

/** @returns {never} */
function noNumbers() {
  throw new Error("this view has no numbers to export");
}

/** The parameters that are kept from one view to the next; of heads that are compared, the first. @param {URLSearchParams} params */
function shared(params) {
  const [layer, item, head] = params.get("a")?.split(".") ?? [];
  const given = { layer, item, head, ...Object.fromEntries(params) };
  if (given.head === "align") return {}; // which is of several layers
  return Object.fromEntries(["layer", "item", "head", "token"].flatMap((name) => (/^\d+$/.test(given[name] ?? "") ? [[name, given[name]]] : [])));
}
