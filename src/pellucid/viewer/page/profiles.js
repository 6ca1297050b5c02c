// The row and the column of one weight beside its map: what a token attends to, and what attends to it.
import { tokenLabel } from "./cell_text.js";
import { percent } from "./colours.js";
import { button, createElement } from "./elements.js";
import { strongest } from "./strongest.js";

const NAMED = 5;
const NUMBERED = { wide: 44, high: 13 }; // pixels of a weight from which bars have numbers
const FONT = "11px system-ui, sans-serif";
const GAP = 10; // pixels between the map and its profiles

/** @typedef {"row" | "column"} Line */

export class Profiles {
  /** @type {Float32Array | null} */
  row = null; // (keys,) once it is known
  /** @type {Float32Array | null} */
  column = null; // (queries,)
  #page;
  #place;
  #words;
  #changed;
  #lines;
  #stop = new AbortController();

  /** @param {Page} page @param {HeadPlace} place @param {TokenSides} words @param {{changed: () => void, unpin: () => void}} calls */
  constructor(page, place, words, { changed, unpin }) {
    this.#page = page;
    this.#place = Object.values(place).join("/");
    this.#words = words;
    this.#changed = changed;
    this.#lines = { row: createElement("p", {}), column: createElement("p", {}) };
    this.element = createElement("section", { className: "pinned", hidden: true, data: { "aria-label": "Pinned" } },
      createElement("div", {}, ...Object.values(this.#lines)), button("Unpin", "Unpin (Escape)", unpin));
  }

  /** The paths of the answers. @param {TokenCell} cell */
  paths({ query, key }) {
    return { row: `row/${this.#place}/${query}`, column: `column/${this.#place}/${key}` };
  }

  /** Show the row and the column of a weight; nothing for null. @param {TokenCell | null} cell */
  show(cell) {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.row = this.column = null;
    this.element.hidden = cell === null;
    if (cell === null) return;
    const signal = AbortSignal.any([this.#stop.signal, this.#page.signal]);
    for (const [side, path] of /** @type {[Line, string][]} */ (Object.entries(this.paths(cell)))) this.#find(side, path, cell, signal);
  }

  /** @param {Line} side @param {string} path @param {TokenCell} cell @param {AbortSignal} signal */
  async #find(side, path, cell, signal) {
    const line = this.#lines[side];
    line.replaceChildren(this.#title(side, cell), "…");
    try {
      const { values } = await this.#page.source.numbers(path, signal);
      if (signal.aborted) return;
      this[side] = values;
      this.tell(cell);
    } catch (error) {
      if (!signal.aborted) line.replaceChildren(this.#title(side, cell), error.message);
    }
    this.#changed();
  }

  /** Name the strongest. @param {TokenCell} cell */
  tell(cell) {
    for (const side of /** @type {Line[]} */ (["row", "column"])) {
      const values = this[side];
      if (values === null) continue;
      const words = side === "row" ? this.#words.keys : this.#words.queries;
      const names = strongest(values, NAMED).map((at) => createElement("span", {}, `${tokenLabel(words, at)} `, createElement("b", { textContent: percent(values[at]) })));
      this.#lines[side].replaceChildren(this.#title(side, cell), ...names.flatMap((one, i) => (i > 0 ? [" · ", one] : [one])));
    }
  }

  /** @param {Line} side @param {TokenCell} cell */
  #title(side, { query, key }) {
    const title = side === "row" ? `${tokenLabel(this.#words.queries, query)} attends to ` : `${tokenLabel(this.#words.keys, key)} is attended to by `;
    return createElement("span", { className: "faint", textContent: title });
  }

  /** Bars along the map, a row below it and a column beside it, each as long as its share of the strongest in view. @param {any} pen @param {import("./heatmap.js").Heatmap} map */
  paint(pen, { camera, colours, strip, drawn: { x, y }, span: { queries, keys } }) {
    pen.font = FONT;
    pen.textBaseline = "middle";
    if (this.row) {
      const floor = y + GAP + strip.high;
      const most = largest(this.row, keys);
      const isNumbered = camera.wide >= NUMBERED.wide;
      const long = (strip.high - (isNumbered ? 14 : 0)) / most;
      pen.fillStyle = colours.accent;
      bars(this.row, keys, (at) => camera.x(at), x, (from, to, value) => pen.fillRect(from, floor - value * long, to - from, value * long));
      line(pen, colours, 0, floor, x, 1);
      pen.textAlign = isNumbered ? "center" : "right";
      if (!isNumbered) pen.fillText(percent(most), -6, floor - strip.high + 6);
      else each(this.row, keys, (at, value) => pen.fillText(percent(value), camera.x(at + 0.5), floor - value * long - 8));
    }
    if (this.column) {
      const left = x + GAP;
      const most = largest(this.column, queries);
      const isNumbered = camera.high >= NUMBERED.high;
      const long = (strip.wide - (isNumbered ? 50 : 0)) / most;
      pen.fillStyle = colours.accent;
      bars(this.column, queries, (at) => camera.y(at), y, (from, to, value) => pen.fillRect(left, from, value * long, to - from));
      line(pen, colours, left, 0, 1, y);
      pen.textAlign = isNumbered ? "left" : "right";
      if (!isNumbered) pen.fillText(percent(most), left + strip.wide, -7);
      else each(this.column, queries, (at, value) => pen.fillText(percent(value), left + value * long + 4, camera.y(at + 0.5)));
    }
  }
}

/** Where the bars begin; what is written after it is faint. */
function line(pen, colours, x, y, wide, high) {
  pen.fillStyle = colours.line;
  pen.fillRect(x, y, wide, high);
  pen.fillStyle = colours.faint;
}

/** One bar for each token, or for each pixel that several share: then the largest of them. */
function bars(values, [first, end], place, long, bar) {
  const size = place(1) - place(0);
  const gap = size > 6 ? 1 : 0;
  for (let at = first; at < end;) {
    const from = place(at);
    const next = size >= 1 ? at + 1 : Math.min(end, Math.max(at + 1, at + Math.floor((Math.floor(from) + 1 - from) / size)));
    const most = largest(values, [at, next]);
    const [start, stop] = [Math.max(0, from), Math.min(long, Math.max(place(next) - gap, from + 0.5))];
    if (most > 0 && stop > start) bar(start, stop, most);
    at = next;
  }
}

/** @param {Float32Array} values @param {Span} span @param {(at: number, value: number) => void} call */
function each(values, [first, end], call) {
  for (let at = first; at < end; at++) if (values[at] > 0) call(at, values[at]);
}

/** @param {Float32Array} values @param {Span} span */
function largest(values, [first, end]) {
  let most = 0;
  for (let at = first; at < end; at++) if (values[at] > most) most = values[at];
  return most;
}
