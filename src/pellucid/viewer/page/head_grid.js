// How the cards of the overview are arranged: a row per layer and a column per head, or one ranked list.
import { createElement } from "./elements.js";

/** @typedef {import("./head_card.js").HeadCard} HeadCard */

const STACK_TITLES = /** @type {Record<string, string>} */ ({ e: "Encoder", d: "Decoder", x: "Cross-attention: the decoder attends to the encoder" });
const GAP = 8; // pixels between thumbnails
const LABEL = 34; // pixels of a layer's number
const HEADS = 30; // of the numbers of heads
const NOTE = 18; // of what stands below a thumbnail
const TITLE = 38; // of a stack's name
const GROUPS = [1, 2, 3, 4];
const BETWEEN = 24; // between stacks beside each other
const SIZE = { least: 32, whole: 44, ranked: 88, usual: 110, most: 208 }; // pixels of a thumbnail
const ROWS = 2.6; // of thumbnails that fit in a window at least, unless they would be smaller than usual

/** All cards in their order. @param {HeadCard[]} cards */
export function rankedList(cards) {
  for (const { element } of cards) element.style.gridArea = "";
  return [createElement("div", { className: "grid" }, ...cards.map((card) => card.element))];
}

/** A grid for each stack of each recording; the layers of a single one in so many groups beside each other. @param {HeadCard[]} cards @param {number} groups */
export function layerGrids(cards, groups) {
  /** @type {Map<string, Map<number, HeadCard[]>>} */
  const stacks = new Map();
  for (const card of cards) {
    const name = `${card.layer.recording}/${card.layer.stack}`;
    const rows = stacks.get(name) ?? new Map();
    stacks.set(name, rows.set(card.layerIndex, [...(rows.get(card.layerIndex) ?? []), card]));
  }
  return [...stacks.values()].flatMap((rows) => {
    const [[{ layer, recording }]] = [...rows.values()];
    const title = [recording, STACK_TITLES[layer.stack]].filter(Boolean).join(" · ");
    const all = [...rows.values()];
    const size = stacks.size > 1 ? all.length : Math.ceil(all.length / groups);
    return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => createElement("div", { className: "stack" },
      ...(title ? [createElement("h2", { textContent: i ? `${title}, continued` : title })] : []), layerGrid(all.slice(i * size, (i + 1) * size))));
  });
}

/** @param {HeadCard[][]} rows the cards of each layer */
function layerGrid(rows) {
  const columns = rows.reduce((most, [{ layer }]) => Math.max(most, layer.heads), 0);
  /** @template {HTMLElement} Element @param {Element} element @param {number} row @param {number} column */
  const place = (element, row, column) => {
    element.style.gridArea = `${row} / ${column}`;
    return element;
  };
  /** @param {string} className @param {string | number} textContent */
  const label = (className, textContent, title = "") => createElement("span", { className, textContent, title, data: { "aria-hidden": "true" } });
  // Labels stay in sight when heads scroll. They come after the heads, so that exports draw them on top.
  const grid = createElement("div", { className: "grid" },
    ...rows.flatMap((cards, i) => cards.map((card) => place(card.element, i + 2, card.head + 2))),
    ...rows.map(([{ layer }], i) => place(label("layer", layer.number, layer.name), i + 2, 1)),
    ...Array.from({ length: columns }, (_, head) => place(label("number", head ? head : "head 0"), 1, head + 2)),
    place(label("corner", "layer"), 1, 1));
  grid.style.setProperty("--heads", String(columns));
  return grid;
}

/**
 * The size of thumbnails with which all heads are in view, if they can still be told apart, else one that fills the list;
 * and in how many groups the layers of a single stack stand beside each other.
 * @param {HTMLElement} list @param {Layer[]} layers @param {boolean} isRanked
 */
export function arrangement({ clientWidth, clientHeight }, layers, isRanked) {
  /** @type {Map<string, {heads: number, rows: number}>} */
  const stacks = new Map();
  for (const { recording, stack, heads } of layers) {
    const one = stacks.get(`${recording}/${stack}`) ?? { heads: 0, rows: 0 };
    stacks.set(`${recording}/${stack}`, { heads: Math.max(one.heads, heads), rows: one.rows + 1 });
  }
  const all = [...stacks.values()];
  const most = (name) => Math.max(...all.map((one) => one[name]));
  const sum = (name) => all.reduce((total, one) => total + one[name], 0);
  const title = all.length > 1 ? TITLE : 0;
  /** Pixels that a thumbnail may have, of so many heads and rows, in so many grids beside and below each other. */
  const room = (heads, rows, beside, below) => Math.min(
    Math.floor((clientWidth - 24 - beside * (LABEL + BETWEEN)) / heads) - GAP,
    Math.floor((clientHeight - 12 - below * (HEADS + title)) / rows) - NOTE - GAP,
  );
  if (isRanked) return { size: SIZE.ranked, groups: 1 };
  const ways = all.length > 1
    ? [{ size: room(most("heads"), sum("rows"), 1, all.length), groups: 1 }, { size: room(sum("heads"), most("rows"), all.length, 1), groups: 1 }]
    : GROUPS.map((groups) => ({ size: room(groups * most("heads"), Math.ceil(most("rows") / groups), groups, 1), groups }));
  const { size, groups } = ways.reduce((best, one) => (one.size > best.size ? one : best));
  if (size >= SIZE.whole) return { size: Math.min(SIZE.most, size), groups };
  const width = Math.floor((clientWidth - 24 - LABEL) / most("heads")) - GAP;
  const height = Math.floor((clientHeight - HEADS) / ROWS) - 34;
  return { size: Math.max(SIZE.least, Math.min(SIZE.most, width, Math.max(SIZE.usual, height))), groups: 1 };
}
