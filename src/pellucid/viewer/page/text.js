// The document itself: click a token to see what it attends to, or what attends to it.
import * as address from "./address.js";
import { words } from "./source.js";
import { percent, shade } from "./colours.js";
import { choice, headChoice, made } from "./parts.js";

const BLOCK = 256; // tokens that are put into the page at once, when they come into view

export async function text(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  const sheetNumber = address.whole(asked, "sheet", about.sheets.length - 1);
  const sheet = about.sheets[sheetNumber];
  const head = address.whole(asked, "head", sheet.heads - 1);
  const item = address.whole(asked, "item", sheet.items - 1);
  let way = asked.get("way") === "from" ? "from" : "to";
  let token = asked.has("token") ? address.whole(asked, "token", sheet.queries - 1) : null;
  let weights = null;
  let most = 1;
  const found = await words(source, sheetNumber, item, "keys", sheet.keys);
  const blocks = [];
  const paper = made("div", { className: "text" });
  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    entry.target.isSeen = entry.isIntersecting;
    if (entry.isIntersecting) fill(entry.target);
  }), { root: view, rootMargin: "400px" });
  signal.addEventListener("abort", () => watcher.disconnect());
  for (let first = 0; first < found.length; first += BLOCK) {
    const block = made("p", {});
    block.first = first;
    blocks.push(block);
    watcher.observe(block);
  }
  paper.append(...blocks);
  view.append(paper);
  controls.append(
    headChoice(about.sheets, sheetNumber, head, (newSheet, newHead) => {
      page.go("text", { ...told(), sheet: newSheet, head: newHead });
    }),
    choice("Shade", [["to", "what a token attends to"], ["from", "what attends to a token"]], way, (value) => { way = value; look(); }),
  );
  paper.addEventListener("click", (event) => {
    const number = event.target.dataset?.token;
    if (number !== undefined) { token = Number(number); look(); }
  }, { signal });
  theme.onChange(paintAll);
  page.offer({ csv });
  say("Click a token, or move to one with Tab and press Enter");
  if (token !== null) {
    await look();
    blocks[Math.floor(token / BLOCK)]?.scrollIntoView({ block: "center" });
  }

  function told() {
    return { sheet: sheetNumber, head, item, way, ...(token === null ? {} : { token }) };
  }

  function fill(block) {
    if (block.childElementCount === 0) {
      for (let i = block.first; i < Math.min(found.length, block.first + BLOCK); i++) {
        const [, space, word] = /^(\s*)([^]*)$/.exec(found[i]);
        const button = made("button", { type: "button", textContent: word || "␣" });
        button.dataset.token = i;
        block.append(space, button);
      }
    }
    paint(block);
  }

  async function look() {
    if (token === null) return;
    page.keep(told());
    say("…");
    try {
      const side = way === "to" ? "row" : "column";
      weights = (await source.numbers(`${side}/${sheetNumber}/${item}/${head}/${token}`, signal)).values;
    } catch (error) {
      page.complain(error);
      return;
    }
    most = weights.reduce((top, value) => Math.max(top, value), 0) || 1;
    paintAll();
    const strongest = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    const names = strongest.map((i) => `“${found[i].trim()}” (${i}) ${percent(weights[i])}`).join(", ");
    say(way === "to" ? `“${found[token].trim()}” (${token}) attends to ${names}` : `“${found[token].trim()}” (${token}) is attended to by ${names}`);
  }

  function csv() {
    if (weights === null) throw new Error("choose a token first");
    return [["position", "token", "weight"], ...found.map((word, i) => [i, word, weights[i]])];
  }

  function paintAll() {
    blocks.filter((block) => block.isSeen).forEach(paint);
  }

  function paint(block) {
    [...block.children].forEach((word, i) => {
      const at = block.first + i;
      word.setAttribute("aria-pressed", String(at === token));
      if (weights === null) return;
      const { paper, ink } = shade(weights[at] / most, theme.table);
      word.style.background = weights[at] > 0 ? paper : "none";
      word.style.color = weights[at] > 0 ? ink : "inherit";
      word.title = percent(weights[at]);
    });
  }
}
