// The page around the views: which of them is shown, and what all of them need.
import { link, read } from "./address.js";
import { csvOf, download, exported } from "./exports.js";
import { button, made } from "./parts.js";
import { remembered } from "./source.js";
import { themeOf } from "./theme.js";
import { compare } from "./compare.js";
import { generation } from "./generation.js";
import { lesson } from "./lesson.js";
import { links } from "./links.js";
import { map } from "./map.js";
import { overview } from "./overview.js";
import { text } from "./text.js";

const VIEWS = { overview, map, compare, text, links, generation, lesson }; // named in the page as here, with a capital letter

/**
 * Fill an element with the page.
 * @param {HTMLElement} root
 * @param {object} from where answers come from: see source.js
 * @param {object} address where what is shown is kept: see address.js
 * @param {(title: string) => void} entitle
 * @param {AbortSignal} ended aborted when nobody looks at the page any more
 */
export async function mount(root, from, address, entitle = () => {}, ended = new AbortController().signal) {
  const source = remembered(from);
  const title = made("h1", {});
  const tabs = Object.keys(VIEWS).map((name) => {
    const element = made("a", { textContent: name[0].toUpperCase() + name.slice(1), href: `#${name}` });
    element.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      address.go(link(name, shared(read(address.said).asked)));
    });
    return element;
  });
  const controls = made("div", { className: "controls" });
  const view = made("main", { tabIndex: -1 });
  const status = made("p", { className: "status", data: { role: "status", "aria-live": "polite" } });
  const theme = themeOf(root, ended);
  const toggle = button("◐", "Light or dark", () => theme.turn());
  const menu = made("details", { className: "export" }, made("summary", { textContent: "Export" }));
  root.classList.add("pellucid");
  root.replaceChildren(
    made("header", {}, title, made("nav", { data: { "aria-label": "Views" } }, ...tabs), controls,
      made("div", { className: "tools" }, menu, toggle)),
    view, status,
  );
  let shown = new AbortController();
  let offered = {};
  ended.addEventListener("abort", () => shown.abort());

  /** Tell people in the line below; screen readers say it too. */
  const say = (words) => { if (status.textContent !== words) status.textContent = words; };
  const complain = (error) => {
    if (error.name === "AbortError") return;
    view.replaceChildren(made("p", { className: "complaint", textContent: `Pellucid: ${error.message}.` }));
  };

  function fillMenu(about) {
    const name = () => `${about.title} ${read(address.said).view}`.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
    const ways = {
      PNG: async () => download(`${name()}.png`, await exported.png(view, theme)),
      SVG: async () => download(`${name()}.svg`, exported.svg(view, theme)),
      CSV: async () => download(`${name()}.csv`, csvOf(await offered.csv())),
      HTML: async () => download(`${name()}.html`, await exported.html(source, offered, address.said, about.title)),
    };
    if (!source.code) delete ways.HTML; // a file is one already
    const titles = { PNG: "a picture", SVG: "a picture that scales", CSV: "the numbers", HTML: "a page of its own, which works offline" };
    menu.append(made("div", {}, ...Object.entries(ways).map(([way, call]) => button(way, `Export as ${way}: ${titles[way]}`, async () => {
      menu.open = false;
      say(`${way} …`);
      try {
        await call();
        say(`${way} saved`);
      } catch (error) {
        say(`Not exported: ${error.message}`);
      }
    }))));
  }

  async function show(about) {
    shown.abort();
    shown = new AbortController();
    const { signal } = shown;
    const { view: wanted, asked } = read(address.said);
    const name = Object.hasOwn(VIEWS, wanted) ? wanted : "overview";
    for (const [i, one] of Object.keys(VIEWS).entries()) {
      if (one === name) tabs[i].setAttribute("aria-current", "page");
      else tabs[i].removeAttribute("aria-current");
    }
    view.replaceChildren();
    controls.replaceChildren();
    source.forget();
    offered = { csv: () => { throw new Error("there are no numbers here"); } };
    say("");
    try {
      await VIEWS[name]({
        about, source, asked, view, controls, signal, say, complain,
        theme: theme.until(signal),
        go: (where, told) => address.go(link(where, told)),
        keep: (told) => { if (!signal.aborted) address.keep(link(name, told)); },
        offer: (some) => { if (!signal.aborted) Object.assign(offered, some); },
      });
    } catch (error) {
      if (!signal.aborted) complain(error);
    }
  }

  try {
    const about = await source.json("about");
    entitle(about.title);
    title.textContent = title.title = about.title;
    fillMenu(about);
    address.onChange(() => show(about));
    await show(about);
  } catch (error) {
    complain(error);
  }
}

/** What stays chosen from one view to the next. */
function shared(asked) {
  return ["sheet", "item", "head", "token"].flatMap((name) => (asked.has(name) ? [[name, asked.get(name)]] : []));
}
