// A text of any length, of which only the tokens near the visible part are in the document.
import { context2d, createElement } from "./elements.js";

const BLOCK = { least: 64, sentence: 128, most: 192 }; // tokens that come and go together
const NEAR = 400; // pixels around the window in which they are there
const BUDGET = 4; // milliseconds of a frame in which they come
const SPECIAL = /^ *(?:\[g?[A-Z]{3,}\]|\[unused\d+\]|<(?!0x[0-9A-F]{2}>)[^<>\s]+>)$/; // as in lens.words
const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

/**
 * @typedef {HTMLElement & {first: number, end: number, isFilled?: boolean}} Block a paragraph of tokens
 * @typedef {HTMLElement & {number: number}} Token
 * @typedef {(at: number) => {paper: string, ink: string, label: string} | null} Shading the colours of each token, and its weight as text
 */

export class VirtualText {
  /** @type {Block[]} */
  #blocks = [];
  #starts = []; // of each word in the whole text
  /** @type {Shading} */
  #shading = () => null;
  #active = -1;
  #marked = [0, 0];
  #chosen = -1;
  #letter = 8; // pixels of one, on average
  #width = 0;
  #coming = new Set(); // blocks that are to be filled
  static #count = 0;
  #id = `token-${VirtualText.#count++}`;

  /**
   * @param {string[]} words each with the space before it
   * @param {{name: string, signal: AbortSignal, choose: (at: number) => void, point: (at: number | null) => void}} to
   */
  constructor(words, { name, signal, choose, point }) {
    this.words = words;
    this.element = createElement("div", { className: "virtual-text", tabIndex: 0, data: { role: "listbox", "aria-label": name } });
    for (let first = 0; first < words.length;) {
      const end = blockEnd(words, first);
      const block = createElement("p", { data: { role: "group", "aria-label": `tokens ${first} to ${end - 1}` } });
      this.#blocks.push(Object.assign(block, { first, end }));
      first = end;
    }
    this.element.append(...this.#blocks);
    const watcher = new IntersectionObserver((entries) => {
      const wasIdle = this.#coming.size === 0;
      for (const { target: element, isIntersecting, boundingClientRect } of entries) {
        const target = /** @type {Block} */ (element);
        if (!isIntersecting) this.#empty(target, boundingClientRect.height);
        else if (!target.isFilled) this.#coming.add(target);
      }
      if (wasIdle && this.#coming.size) this.#fillSome();
    }, { root: this.element, rootMargin: `${NEAR}px 0px` });
    const resized = new ResizeObserver(() => { if (this.element.clientWidth !== this.#width) this.#measure(); });
    signal.addEventListener("abort", () => { watcher.disconnect(); resized.disconnect(); });
    this.start = () => {
      this.#measure();
      this.#blocks.forEach((block) => watcher.observe(block));
      resized.observe(this.element);
    };
    const at = (event) => event.target.closest?.(".token")?.number;
    this.element.addEventListener("click", (event) => { if (at(event) !== undefined) { this.move(at(event)); choose(at(event)); } }, { signal });
    this.element.addEventListener("pointerover", (event) => point(at(event) ?? null), { signal });
    this.element.addEventListener("pointerleave", () => point(null), { signal });
    this.element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if ((event.key === "Enter" || event.key === " ") && this.#active >= 0) choose(this.#active);
      else {
        const to = this.#next(event.key);
        if (to === null) return;
        this.move(to);
        this.reveal(to, "nearest");
        point(to);
      }
      event.preventDefault();
    }, { signal });
    // Whoever comes by Tab stands on a word at once.
    this.element.addEventListener("focus", () => { if (!this.element.matches(":active")) this.move(this.#inView()); }, { signal });
  }

  /** @param {Shading} shading @param {number} chosen the selected token; -1 for none */
  paint(shading, chosen) {
    this.#shading = shading;
    this.#chosen = chosen;
    this.#blocks.forEach((block) => this.#paint(block));
  }

  /** Put marks around some words. @param {number} from @param {number} to */
  mark(from, to) {
    this.#marked = [from, to];
    this.#blocks.forEach((block) => this.#decorate(block));
  }

  /** The words in which a text stands, one after the other. @param {string} wanted @returns {[number, number][]} first and last + 1 */
  find(wanted) {
    if (!wanted) return [];
    if (!this.#starts.length) {
      let length = 0;
      for (const word of this.words) { this.#starts.push(length); length += word.length; }
    }
    const literal = wanted.replace(/[.*+?^${}()|[\]\\/-]/g, (sign) => (sign === "-" || sign === "/" ? sign : `\\${sign}`));
    return [...this.words.join("").matchAll(new RegExp(literal, "giu"))].map((found) => {
      const first = this.#wordAt(found.index);
      return [first, this.#wordAt(found.index + found[0].length - 1) + 1];
    });
  }

  /** Make a word the one from which arrow keys go. @param {number} to */
  move(to) {
    const before = this.#token(this.#active);
    before?.classList.remove("active");
    before?.removeAttribute("id");
    this.#active = to;
    if (to < 0) return;
    this.#decorate(this.#blockOf(to));
    this.element.setAttribute("aria-activedescendant", this.#id);
  }

  /** Scroll to a word. @param {number} at */
  reveal(at, where = "center") {
    const [word, box] = [this.#filled(at).getBoundingClientRect(), this.element.getBoundingClientRect()];
    const room = Math.min(60, box.height / 4);
    if (where === "center") this.element.scrollTop += word.top - box.top - (box.height - word.height) / 2;
    else if (word.top < box.top + room) this.element.scrollTop += word.top - box.top - room;
    else if (word.bottom > box.bottom - room) this.element.scrollTop += word.bottom - box.bottom + room;
  }

  /** @param {number} at */
  #blockOf(at) {
    return this.#blocks[below(this.#blocks, (block) => block.first <= at)];
  }

  /** @param {number} letter */
  #wordAt(letter) {
    return below(this.#starts, (start) => start <= letter);
  }

  /** @param {number} at @returns {HTMLElement | null} null where it is not on the page */
  #token(at) {
    const block = at < 0 ? null : this.#blockOf(at);
    return /** @type {HTMLElement | undefined} */ (block?.children[at - block.first]) ?? null;
  }

  /** A token, put on the page if it is not there yet. @param {number} at @returns {HTMLElement} */
  #filled(at) {
    const block = this.#blockOf(at);
    this.#fill(block);
    return /** @type {HTMLElement} */ (block.children[at - block.first]);
  }

  /** How high blocks are that are not filled: what is scrolled past is of the right length, or nearly. */
  #measure() {
    const style = getComputedStyle(this.element);
    const pen = context2d(document.createElement("canvas"));
    pen.font = `${style.fontSize} ${style.fontFamily}`;
    const some = this.words.slice(0, 500).join("");
    this.#letter = pen.measureText(some).width / Math.max(1, some.length) || 8;
    this.#width = this.element.clientWidth;
    const wide = this.#width - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const line = parseFloat(style.lineHeight);
    for (const block of this.#blocks) {
      if (block.isFilled) continue;
      const text = this.words.slice(block.first, block.end).join("").replace(/\n$/, "");
      const lines = text.split("\n").reduce((sum, part) => sum + Math.max(1, Math.ceil((part.length * this.#letter) / wide)), 0);
      block.style.height = `${lines * line}px`;
    }
  }

  /** What is nearest to the middle of the window first, and the rest in the next frames. */
  #fillSome() {
    const start = performance.now();
    const middle = this.element.scrollTop + this.element.clientHeight / 2;
    const far = new Map([...this.#coming].map((block) => [block, Math.abs(block.offsetTop + block.offsetHeight / 2 - middle)]));
    for (const [block] of [...far].sort((a, b) => a[1] - b[1])) {
      this.#fill(block);
      if (performance.now() - start > BUDGET) break;
    }
    if (this.#coming.size) requestAnimationFrame(() => this.#fillSome());
  }

  /** @param {Block} block */
  #fill(block) {
    this.#coming.delete(block);
    if (block.isFilled) return;
    block.isFilled = true;
    const parts = [];
    for (let i = block.first; i < block.end; i++) {
      const { before, text, after, kind } = displayed(this.words[i]);
      if (before && i > block.first && !this.words[i - 1].endsWith("\n")) parts.push(before);
      const token = createElement("span", { className: kind ? `token ${kind}` : "token", textContent: text, number: i });
      token.setAttribute("role", "option");
      parts.push(token);
      if (after) parts.push(after);
    }
    block.style.height = "";
    block.replaceChildren(...parts);
    this.#paint(block);
    this.#decorate(block);
  }

  /** @param {Block} block @param {number} height */
  #empty(block, height) {
    this.#coming.delete(block);
    if (!block.isFilled) return;
    block.isFilled = false;
    block.style.height = `${height}px`;
    block.replaceChildren();
  }

  /** @param {Block} block */
  #paint(block) {
    if (!block.isFilled) return;
    for (const token of /** @type {Token[]} */ ([...block.children])) {
      const looks = this.#shading(token.number);
      token.style.background = looks?.paper ?? "";
      token.style.color = looks?.ink ?? "";
      const text = token.textContent || "the rest of the letter before";
      if (looks) token.setAttribute("aria-label", `${text} ${looks.label}`);
      else if (token.textContent) token.removeAttribute("aria-label");
      else token.setAttribute("aria-label", text);
      token.setAttribute("aria-selected", String(token.number === this.#chosen));
    }
  }

  /** @param {Block} block */
  #decorate(block) {
    if (!block.isFilled) return;
    const [from, to] = this.#marked;
    block.querySelectorAll(".found").forEach((token) => token.classList.remove("found"));
    for (let at = Math.max(from, block.first); at < Math.min(to, block.end); at++) this.#token(at)?.classList.add("found");
    if (this.#active < block.first || this.#active >= block.end) return;
    const active = this.#filled(this.#active);
    active.classList.add("active");
    active.id = this.#id;
  }

  /** The word from which to go: the last one if it is in view, else the first that is. */
  #inView() {
    const box = this.element.getBoundingClientRect();
    const isSeen = (token) => {
      const { top, bottom } = token.getBoundingClientRect();
      return top >= box.top - 1 && bottom <= box.bottom + 1;
    };
    const last = this.#token(this.#active);
    if (last && isSeen(last)) return this.#active;
    return /** @type {Token[]} */ ([...this.element.querySelectorAll(".token")]).find(isSeen)?.number ?? 0;
  }

  /** Where a key leads; null where it leads nowhere. @param {string} key */
  #next(key) {
    const last = this.words.length - 1;
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (!(key in KEYS) && key !== "ArrowUp" && key !== "ArrowDown") return null;
    const from = this.#inView();
    if (from !== this.#active) return from;
    if (key in KEYS) return Math.min(last, Math.max(0, from + KEYS[key]));
    return this.#line(from, key === "ArrowUp" ? -1 : 1);
  }

  /** The nearest word of the line above or below. @param {number} from @param {number} way */
  #line(from, way) {
    const box = (/** @type {number} */ at) => this.#filled(at).getClientRects()[0];
    const here = box(from);
    const middle = (here.left + here.right) / 2;
    let best = from;
    let nearest = Infinity;
    let line = null;
    for (let at = from + way; at >= 0 && at < this.words.length; at += way) {
      const there = box(at);
      if ((there.top - here.top) * way < here.height / 2) continue;
      line ??= there.top;
      if (Math.abs(there.top - line) > here.height / 2) break;
      const far = Math.abs((there.left + there.right) / 2 - middle);
      if (far < nearest) [nearest, best] = [far, at];
    }
    return best;
  }
}

/** What stands in the page for a word: what cannot be seen is a sign that can. @param {string} word */
function displayed(word) {
  const before = /^ */.exec(word)?.[0] ?? "";
  let text = word.slice(before.length);
  if (SPECIAL.test(word)) return { before, text, after: "", kind: "special" };
  if (!word) return { before: "", text: "", after: "", kind: "part" };
  if (!text) return { before: "", text: "␣".repeat(Math.max(1, before.length)), after: "", kind: "sign" };
  const after = /\n*$/.exec(text)?.[0] ?? "";
  const kind = text.trim() ? "" : "sign";
  text = text.replace(/[\x00-\x1f]/g, (sign) => ({ "\n": "⏎", "\r": "", "\t": "⇥" })[sign] ?? String.fromCharCode(0x2400 + sign.charCodeAt(0)));
  return { before, text: text || "␍", after, kind };
}

/** Where a block ends: with a paragraph, else with a sentence, else with a word. @param {string[]} words @param {number} first */
function blockEnd(words, first) {
  for (let i = first + 1; i < words.length; i++) {
    const [count, last, next] = [i - first, words[i - 1], words[i]];
    if (count >= BLOCK.least && /\n$/.test(last)) return i;
    if (!/^[ \n]/.test(next) && count < 2 * BLOCK.most) continue;
    if (count >= BLOCK.most || (count >= BLOCK.sentence && /[.!?]["”’)]*$/.test(last))) return i;
  }
  return words.length;
}

/** The last place of which something holds, that holds of all before it. @param {any[]} sorted @param {(one: any) => boolean} holds */
function below(sorted, holds) {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (holds(sorted[middle])) low = middle;
    else high = middle - 1;
  }
  return low;
}
