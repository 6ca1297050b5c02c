// Two columns of tokens and a curve for each weight between them; only its own for a token that is pointed at or pinned.
import { headColour, percent } from "./colours.js";
import { Columns, isSame } from "./columns.js";
import { button, context2d, createElement, hint } from "./elements.js";
import { Lines } from "./lines.js";
import { strongest } from "./strongest.js";

const ROW = { tight: 17, least: 19, most: 44 }; // pixels of a word's line; tight where all fit so, instead of a few that scroll
const GAP = { phone: 90, least: 150, most: 460 }; // between the columns
const SHARE = 58; // pixels of a percentage beside a word
const BOX = 11; // and of the box of a head

/** @typedef {import("./lines.js").Word} Word */

export class Curves {
  #page;
  #found;
  #now;
  #changed;
  #lines;
  #columns;
  #all; // the lines when no word is pointed at
  /** @type {Word | null} */
  #pointed = null; // the word under the pointer, or with the focus
  /** @type {any} */
  #at = {}; // places in the picture, in pixels
  #canvas = createElement("canvas", { data: { "aria-hidden": "true" } });
  #slider = createElement("input", { type: "range", min: 0, max: 100 });
  #limit = createElement("span", { className: "limit" });
  #toggles = [];

  /**
   * @param {Page} page
   * @param {import("./links.js").ShownWeights} found
   * @param {{least: number | null, off: Set<number>, pinned: import("./lines.js").Word | null, head: string}} now what of
   *   it is chosen; changed here
   * @param {{windows: Element[], note: string, changed: () => void}} more controls and words beside it, and what to do when `now` has changed
   */
  constructor(page, found, now, { windows, note, changed }) {
    this.#page = page;
    this.#found = found;
    this.#now = now;
    this.#changed = changed;
    this.#lines = new Lines(found, now);
    this.#all = this.#lines.drawn(null);
    this.#columns = new Columns(found, { point: (word) => this.#point(word), pin: (word) => this.#pin(word) });
    this.#canvas.paint = (pen) => this.#draw(pen);
    this.#slider.addEventListener("input", () => this.#change({ least: Number(this.#slider.value) }));
    this.bar = createElement("div", { className: "bar" },
      createElement("label", {}, "Hide weights below ", this.#slider, " ", this.#limit), ...windows,
      ...(this.#lines.isMany ? [this.#heads()] : []), ...(note ? [createElement("p", { className: "note", textContent: note })] : []));
    this.picture = createElement("div", { className: "picture" }, this.#canvas, this.#columns.queries.element, this.#columns.keys.element);
  }

  /** @param {Partial<{least: number | null, off: Set<number>}>} some */
  #change(some) {
    Object.assign(this.#now, some);
    this.#changed();
    this.#all = this.#lines.drawn(null);
    this.paint();
  }

  /** @param {Word | null} word */
  #point(word) {
    if (isSame(word, this.#pointed)) return;
    this.#pointed = word;
    this.paint();
  }

  /** Keep a word, or let it go: nothing is pointed at then until something else is. @param {Word | null} word */
  #pin(word) {
    const pinned = isSame(word, this.#now.pinned) ? null : word;
    if (!pinned) this.#pointed = null;
    this.#now.pinned = pinned;
    this.#changed();
    this.paint();
  }

  /** The word whose lines are drawn, if any. */
  get #word() {
    const isHere = ({ side, at }) => at >= this.#found[side].first && at < this.#found[side].first + this.#found[side].count;
    return [this.#pointed, this.#now.pinned].find((one) => one && isHere(one)) ?? null;
  }

  /** Buttons that put heads on and off. */
  #heads() {
    const { heads } = this.#found;
    const turn = (head) => {
      const off = new Set(this.#now.off);
      if (!off.delete(head)) off.add(head);
      this.#change({ off });
    };
    this.#toggles = heads.map((head) => {
      const element = button(String(head), `Head ${head}: ${hint("click to show or hide it, double-click", "tap to show or hide it, tap twice")} to show it alone`, () => turn(head));
      element.addEventListener("dblclick", () => this.#change({ off: new Set(heads.filter((one) => one !== head)) }));
      element.className = "toggle";
      return element;
    });
    return createElement("span", { className: "toggles", data: { role: "group", "aria-label": "Heads shown" } },
      "heads ", ...this.#toggles, button("all", "Show all heads", () => this.#change({ off: new Set() })));
  }

  /** @param {number} i */
  #colour(i) {
    return headColour(this.#found.heads[i], this.#page.theme.isDark);
  }

  /** Find places for all in the window, and paint it. */
  place() {
    const { clientHeight, clientWidth } = this.#page.view;
    const { planes, heads } = this.#found;
    const { queries, keys } = this.#columns;
    const pen = context2d(this.#canvas);
    const isNarrow = clientWidth < 480; // there the words need the room of the boxes, and lines have the colours of heads too
    const gap = isNarrow ? GAP.phone : GAP.least;
    const count = Math.max(queries.words.length, keys.words.length);
    const room = clientHeight - this.bar.offsetHeight - 60;
    const least = room / count >= ROW.tight ? ROW.tight : clientHeight < 480 ? ROW.least - 1 : ROW.least;
    const row = Math.max(least, Math.min(ROW.most, room / count));
    const font = Math.min(17, Math.max(12, row * 0.62));
    pen.font = `${font}px system-ui, sans-serif`;
    const boxes = this.#lines.isMany && !isNarrow ? heads.length * BOX + 8 : 0;
    const most = Math.max(60, (Math.max(300, clientWidth - 24) - 2 * (SHARE + boxes) - gap) / 2);
    const [wide, wideKeys] = [queries, keys].map(({ texts }) => SHARE + Math.min(most, 20 + texts.reduce((widest, text) => Math.max(widest, pen.measureText(text).width), 0)));
    const left = boxes + wide;
    const right = left + Math.min(GAP.most, Math.max(gap, clientWidth - 24 - left - wideKeys - boxes));
    const width = right + wideKeys + boxes;
    const top = 26;
    const height = top + count * row + 8;
    // Lines of several heads lie side by side.
    this.#at = { left, right, width, height, row, boxes, aside: Math.min(3, (row - 8) / planes.length) };
    const size = { width: `${width}px`, height: `${height}px` };
    Object.assign(this.picture.style, size, { fontSize: `${font}px` });
    for (const { column: { name, element, words }, x, across } of [{ column: queries, x: boxes, across: wide }, { column: keys, x: right, across: wideKeys }]) {
      const first = top + ((count - words.length) * row) / 2; // the shorter column stands in the middle
      this.#at[name] = first + row / 2;
      Object.assign(element.style, { left: `${x}px`, top: 0, width: `${across}px`, paddingTop: `${first}px` });
      for (const word of words) /** @type {HTMLElement} */ (word.parentElement).style.height = `${row}px`;
    }
    const ratio = Math.min(devicePixelRatio || 1, 16_000 / height);
    Object.assign(this.#canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(this.#canvas.style, size);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paint();
  }

  paint() {
    const word = this.#word;
    const limit = this.#lines.limitOf(word);
    const shares = word ? this.#lines.shares(word) : [];
    this.#draw(context2d(this.#canvas));
    this.#columns.mark(word, shares, limit, this.#now.pinned);
    this.#toggles.forEach((element, i) => {
      const isOn = !this.#now.off.has(this.#found.heads[i]);
      const { paper, ink } = this.#colour(i);
      element.setAttribute("aria-pressed", String(isOn));
      Object.assign(element.style, { borderColor: paper, background: isOn ? paper : "transparent", color: isOn ? ink : "inherit" });
    });
    this.#limit.textContent = percent(limit);
    this.#slider.value = String(this.#lines.placeOf(word));
    this.#slider.setAttribute("aria-valuetext", percent(limit));
    this.#page.setStatus(word ? this.#describe(word, shares) : this.#summary());
  }

  /** @param {any} pen */
  #draw(pen) {
    const { left, right, width, height, row, aside, queries, keys } = this.#at;
    const { isMany } = this.#lines;
    const word = this.#word;
    const accent = this.#page.theme.colour("--accent");
    const bend = (right - left) * 0.45;
    pen.clearRect(0, 0, width, height);
    for (const { i, query, key, value } of (word ? this.#lines.drawn(word) : this.#all).lines) {
      const shift = (i - (this.#found.planes.length - 1) / 2) * aside;
      const [from, to] = [queries + query * row + shift, keys + key * row + shift];
      pen.strokeStyle = isMany ? this.#colour(i).paper : accent;
      pen.globalAlpha = 0.05 + 0.95 * Math.min(1, value);
      pen.lineWidth = 0.9 + (isMany && !word ? 2.1 : 3.6) * value;
      pen.beginPath();
      pen.moveTo(left, from);
      pen.bezierCurveTo(left + bend, from, right - bend, to, right, to);
      pen.stroke();
    }
    if (word && this.#at.boxes) this.#drawBoxes(pen, word);
    pen.globalAlpha = 1;
  }

  /** Beside each word, what each head gives it: the fuller a box, the more. @param {any} pen @param {Word} word */
  #drawBoxes(pen, word) {
    const { width, row, boxes, queries, keys } = this.#at;
    const isQuery = word.side === "queries";
    const [left, top] = isQuery ? [width - boxes + 8, keys] : [0, queries];
    const high = Math.min(row - 4, 16);
    this.#lines.weights(word).forEach((some, other) => {
      const y = top + other * row - high / 2;
      for (const { i, value } of some) {
        if (!(value > 0)) continue;
        const x = left + i * BOX;
        pen.fillStyle = pen.strokeStyle = this.#colour(i).paper;
        pen.lineWidth = 1;
        pen.globalAlpha = value;
        pen.fillRect(x, y, BOX - 2, high);
        pen.globalAlpha = 0.5;
        pen.strokeRect(x + 0.5, y + 0.5, BOX - 3, high - 1);
      }
    });
  }

  /** Which weights these are. */
  get #name() {
    const { of, heads } = this.#found;
    return this.#lines.isMany ? `${of}, ${this.#lines.on.length} of ${heads.length} heads` : of;
  }

  #summary() {
    const { lines: { length }, count } = this.#all;
    const many = `${count > length ? `the strongest ${length.toLocaleString()} of ` : ""}${count.toLocaleString()}`;
    return `${this.#name} · ${many} weights of ${percent(this.#lines.limitOf(null))} or more · ${hint("point at a token, or move to one with Tab and the arrow keys; click to pin it", "tap a token to pin it")}`;
  }

  /** What a word attends to most, or what attends to it. @param {Word} word @param {number[]} shares */
  #describe({ side, at }, shares) {
    const isQuery = side === "queries";
    const other = isQuery ? "keys" : "queries";
    const named = (name, i) => `“${this.#columns[name].texts[i]}” (${this.#found[name].first + i})`;
    const best = strongest(shares, 3);
    const rest = 1 - shares.reduce((sum, value) => sum + value, 0);
    const [does, isDone] = this.#found.isAligned ? ["attended to", "was attended to for"] : ["attends to", "is attended to by"];
    return `${named(side, at - this.#found[side].first)} ${isQuery ? does : isDone} `
      + `${best.map((i) => `${named(other, i)} ${percent(shares[i])}`).join(", ") || "nothing here"}`
      + `${isQuery && rest > 0.0005 ? ` · ${percent(rest)} to tokens not shown` : ""} · ${this.#name}${this.#lines.isMany ? ", mean of heads" : ""}`;
  }

  /** The numbers of what is drawn, the strongest first. */
  rows() {
    const { heads, queries, keys } = this.#found;
    const word = this.#word;
    const { lines } = word ? this.#lines.drawn(word) : this.#all;
    return [["query position", "query", "key position", "key", "head", "weight"],
      ...lines.map(({ i, query, key, value }) =>
        [queries.first + query, queries.words[query], keys.first + key, keys.words[key], heads.length ? heads[i] : this.#now.head, value]).reverse()];
  }
}
