// Two columns of tokens with weights beside them. A token can be pointed at, pinned by a click, and reached with the arrow keys.
import { percent } from "./colours.js";
import { createElement, truncate } from "./elements.js";

/** @typedef {import("./lines.js").Word} Word */

export class Columns {
  /**
   * @param {import("./links.js").ShownWeights} found
   * @param {{point: (word: Word | null) => void, pin: (word: Word | null) => void}} calls what to do when
   *   a word is pointed at or has the focus, or none; when one is clicked, or none is to be pinned
   */
  constructor(found, { point, pin }) {
    const titles = found.isAligned ? ["translation", "source"] : ["attends", "attended to"];
    const roles = found.isAligned ? titles : ["query", "key"];
    this.queries = column("queries", found.queries, titles[0], roles[0]);
    this.keys = column("keys", found.keys, titles[1], roles[1]);
    for (const { element } of [this.queries, this.keys]) this.#listen(element, point, pin);
  }

  /** @param {HTMLElement} element @param {(word: Word | null) => void} point @param {(word: Word | null) => void} pin */
  #listen(element, point, pin) {
    /** @param {Event} event @param {string} selector @returns {HTMLElement | null} */
    const closest = ({ target }, selector) => (target instanceof Element ? target.closest(selector) : null);
    /** @param {Event} event @returns {HTMLElement | null} */
    const wordOf = (event) => closest(event, "li")?.querySelector(".word") ?? null;
    element.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") point(placeOf(wordOf(event))); });
    element.addEventListener("pointerleave", () => point(null));
    element.addEventListener("focusin", (event) => { if (closest(event, ".word:focus-visible")) point(placeOf(wordOf(event))); });
    element.addEventListener("focusout", () => point(null));
    element.addEventListener("click", (event) => { if (closest(event, ".word")) pin(placeOf(wordOf(event))); });
    element.addEventListener("keydown", (event) => {
      const word = closest(event, ".word");
      if (!word) return;
      const { words } = element === this.queries.element ? this.queries : this.keys;
      const i = words.findIndex((one) => one === word);
      /** @type {[HTMLElement[], number] | undefined} */
      const move = /** @type {Record<string, any>} */ ({ ArrowUp: [words, i - 1], ArrowDown: [words, i + 1], Home: [words, 0], End: [words, Infinity], ArrowLeft: [this.queries.words, i], ArrowRight: [this.keys.words, i] })[event.key];
      if (event.key === "Escape") pin(null);
      else if (move) focus(...move);
      else return;
      event.preventDefault();
    });
  }

  /**
   * Light a word, dim those of which it has little, and write the shares beside the others.
   * @param {Word | null} lit
   * @param {number[]} shares of the other side's words
   * @param {number} limit less than this is little
   * @param {Word | null} pinned the token that was clicked
   */
  mark(lit, shares, limit, pinned) {
    for (const { name, element, words, shares: places } of [this.queries, this.keys]) {
      const isOther = lit !== null && lit.side !== name;
      element.classList.toggle("with-shares", isOther);
      words.forEach((word, i) => {
        const here = placeOf(word);
        places[i].textContent = isOther ? (shares[i] === 0 ? "–" : percent(shares[i])) : "";
        word.setAttribute("aria-pressed", String(isSame(pinned, here)));
        word.classList.toggle("lit", isSame(lit, here));
        word.classList.toggle("dim", isOther && shares[i] < limit);
      });
    }
  }
}

/** @param {Word | null} one @param {Word | null} other @returns {boolean} whether two are the same word, or both none */
export function isSame(one, other) {
  return one?.side === other?.side && one?.at === other?.at;
}

/** @returns {Word | null} */
function placeOf(word) {
  return word && { side: word.closest("ol").dataset.side, at: Number(word.dataset.at) };
}

/** @param {Side} name @param {import("./links.js").ShownTokens} tokens @param {string} title @param {string} role */
function column(name, { words: all, first }, title, role) {
  const texts = all.map((word) => truncate(word, 24));
  const words = texts.map((text, i) => createElement("button", {
    type: "button", className: "word", textContent: text, tabIndex: i ? -1 : 0,
    data: { "data-at": first + i, "aria-label": `“${text}”, token ${first + i}, ${role}` },
  }));
  const shares = words.map(() => createElement("span", { className: "share" }));
  const element = createElement("ol", { className: name, data: { "aria-label": title, "data-title": title, "data-side": name } },
    ...words.map((word, i) => createElement("li", {}, shares[i], word)));
  return { name, element, words, texts, shares };
}

/** Move the focus among words; Tab comes back to where it was. @param {HTMLElement[]} words @param {number} to */
function focus(words, to) {
  const next = words[Math.max(0, Math.min(words.length - 1, to))];
  words.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
  next.focus();
}

