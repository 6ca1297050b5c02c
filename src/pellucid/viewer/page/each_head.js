// Below a short text: what the chosen word attends to in each head of its layer, or what attends to it.
import { button, createElement, truncate } from "./elements.js";
import { paint } from "./grids.js";
import { weight } from "./sentences.js";

const MOST = { words: 32, heads: 32 };

export class EachHead {
  #theme;
  #words;
  #choose;
  #stop = new AbortController();
  /** @type {(() => void)[]} */
  #shades = [];

  /** @param {Page} page @param {string[]} words @param {(head: number) => void} choose */
  constructor({ theme }, words, choose) {
    this.#theme = theme;
    this.#words = words;
    this.#choose = choose;
    this.element = createElement("section", { className: "each", hidden: true, tabIndex: 0, data: { "aria-label": "Each head of this layer" } });
    theme.onChange(() => this.#shades.forEach((one) => one()));
  }

  /** Whether there is room for all of them. @param {Layer} layer @param {number} words */
  static fits(layer, words) {
    return words <= MOST.words && layer.heads <= MOST.heads;
  }

  hide() {
    this.#stop.abort();
    this.element.hidden = true;
  }

  /**
   * @param {string} title
   * @param {number} heads
   * @param {number} chosen the head that shades the text, or −1
   * @param {(head: number, signal: AbortSignal) => Promise<Float32Array>} find
   */
  async show(title, heads, chosen, find) {
    this.#stop.abort();
    const { signal } = (this.#stop = new AbortController());
    const rows = await Promise.all(Array.from({ length: heads }, (_, head) => find(head, signal))).catch(() => null);
    if (signal.aborted) return;
    this.element.hidden = rows === null; // as where a file holds some heads alone
    if (rows === null) return;
    this.#shades = [];
    const hasFocus = this.element.contains(/** @type {Document | ShadowRoot} */ (this.element.getRootNode()).activeElement);
    const body = rows.map((row, head) => {
      const name = button(String(head), `Shade the text by head ${head}`, () => this.#choose(head));
      name.setAttribute("aria-pressed", String(head === chosen));
      return createElement("tr", {}, createElement("th", { scope: "row" }, name), ...Array.from(row, (value) => this.#cell(value)));
    });
    this.element.replaceChildren(createElement("h2", { textContent: title }), createElement("table", { className: "walk" },
      createElement("thead", {}, createElement("tr", {}, createElement("th", { scope: "col", textContent: "head" }), ...this.#words.map((word) => createElement("th", { scope: "col", textContent: truncate(word, 14) })))),
      createElement("tbody", {}, ...body)));
    if (hasFocus) body[Math.max(0, chosen)].querySelector("button")?.focus();
  }

  /** @param {number} value */
  #cell(value) {
    const cell = createElement("td", { textContent: value === 0 ? "–" : weight(value) });
    const shade = () => paint(cell, Math.sqrt(value), this.#theme.table);
    this.#shades.push(shade);
    shade();
    return cell;
  }
}
