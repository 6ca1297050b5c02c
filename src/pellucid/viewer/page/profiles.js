// The row and the column of one weight beside its map: what a token attends to, and what attends to it.
import { percent } from "./colours.js";
import { button, made, short } from "./parts.js";

const NAMED = 5;
const GAP = 10; // pixels between the map and its profiles

export class Profiles {
  row = null; // (keys,) once it is known
  column = null; // (queries,)
  #page;
  #place;
  #words;
  #changed;
  #stop = new AbortController();

  /** @param {() => void} changed @param {() => void} unpin */
  constructor(page, place, words, { changed, unpin }) {
    this.#page = page;
    this.#place = Object.values(place).join("/");
    this.#words = words;
    this.#changed = changed;
    this.#lines = { row: made("p", {}), column: made("p", {}) };
    this.element = made("section", { className: "pinned", hidden: true, data: { "aria-label": "Pinned" } },
      made("div", {}, ...Object.values(this.#lines)), button("Unpin", "Unpin (Escape)", unpin));
  }

  #lines;

  /** Where the answers are found. */
  paths({ query, key }) {
    return { row: `row/${this.#place}/${query}`, column: `column/${this.#place}/${key}` };
  }

  /** Show the row and the column of a weight; of none, nothing. */
  show(cell) {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.row = this.column = null;
    this.element.hidden = cell === null;
    if (cell === null) return;
    const signal = AbortSignal.any([this.#stop.signal, this.#page.signal]);
    for (const [side, path] of Object.entries(this.paths(cell))) this.#find(side, path, cell, signal);
  }

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

  /** Name the strongest. */
  tell(cell) {
    for (const side of ["row", "column"]) {
      const values = this[side];
      if (values === null) continue;
      const words = side === "row" ? this.#words.keys : this.#words.queries;
      const names = strongest(values, NAMED).map((at) => made("span", {}, `${named(words, at)} `, made("b", { textContent: percent(values[at]) })));
      this.#lines[side].replaceChildren(this.#title(side, cell), ...names.flatMap((one, i) => (i > 0 ? [" · ", one] : [one])));
    }
  }

  #title(side, { query, key }) {
    const title = side === "row" ? `${named(this.#words.queries, query)} attends to ` : `${named(this.#words.keys, key)} is attended to by `;
    return made("span", { className: "faint", textContent: title });
  }

  /** Bars along the map, a row below it and a column beside it, each as long as its share of the strongest. */
  paint(pen, { camera, colours, strip }) {
    const { x, y } = camera.drawn;
    const { queries, keys } = camera.span;
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    if (this.row) {
      const top = y + GAP;
      const most = largest(this.row);
      pen.fillStyle = colours.accent;
      bars(pen, this.row, keys, (at) => camera.x(at), x, (from, to, value) => {
        const long = (value / most) * strip.high;
        pen.rect(from, top + strip.high - long, to - from, long);
      });
      pen.fillStyle = colours.line;
      pen.fillRect(0, top + strip.high, x, 1);
      pen.fillStyle = colours.faint;
      pen.fillText(percent(most), -6, top + 6);
      pen.fillText("0 %", -6, top + strip.high - 4);
    }
    if (this.column) {
      const left = x + GAP;
      const most = largest(this.column);
      pen.fillStyle = colours.accent;
      bars(pen, this.column, queries, (at) => camera.y(at), y, (from, to, value) => {
        pen.rect(left, from, (value / most) * strip.wide, to - from);
      });
      pen.fillStyle = colours.line;
      pen.fillRect(left - 1, 0, 1, y);
      pen.fillStyle = colours.faint;
      pen.fillText(percent(most), left + strip.wide, -7);
    }
  }
}

/** One bar for each token, or for each pixel that several share: then the largest of them. */
function bars(pen, values, [first, end], place, long, bar) {
  const size = place(1) - place(0);
  const gap = size > 6 ? 1 : 0;
  pen.beginPath();
  for (let at = first; at < end;) {
    const from = place(at);
    const next = size >= 1 ? at + 1 : Math.min(end, Math.max(at + 1, at + Math.floor((Math.floor(from) + 1 - from) / size)));
    let most = 0;
    for (let i = at; i < next; i++) if (values[i] > most) most = values[i];
    if (most > 0) bar(Math.max(0, from), Math.min(long, place(next) - gap), most);
    at = next;
  }
  pen.fill();
}

function largest(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most || 1;
}

/** The places of the largest, in their order. */
function strongest(values, count) {
  const found = [];
  for (let at = 0; at < values.length; at++) {
    if (values[at] === 0 || (found.length === count && values[at] <= values[found[count - 1]])) continue;
    found.push(at);
    found.sort((a, b) => values[b] - values[a]);
    if (found.length > count) found.pop();
  }
  return found;
}

function named(words, at) {
  return words ? `“${short(words[at], 24)}” (${at})` : `token ${at}`;
}
