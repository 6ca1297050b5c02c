// How the cards of the overview are arranged: a row per layer and a column per head, or one ranked list.
import { createElement } from "./elements.js";

/** @typedef {import("./head_card.js").HeadCard} HeadCard */

const STACK_TITLES = /** @type {Record<string, string>} */ ({ e: "Encoder", d: "Decoder", x: "Cross-attention: the decoder attends to the encoder" });
const GAP = 8; // pixels between thumbnails
const LABEL = 34; // pixels of a layer's number
const SIZE = { least: 54, ranked: 88, usual: 110, most: 208 }; // pixels of a thumbnail
const ROWS = 2.6; // of thumbnails that fit in a window at least, unless they would be smaller than usual

/** All cards in their order. @param {HeadCard[]} cards */
export function rankedList(cards) {
  for (const { element } of cards) element.style.gridArea = "";
  return [createElement("div", { className: "grid" }, ...cards.map((card) => card.element))];
}

/** A grid for each stack of each recording. @param {HeadCard[]} cards */
export function layerGrids(cards) {
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
    const grid = layerGrid([...rows.values()]);
    return title ? [createElement("h2", { textContent: title }), grid] : [grid];
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
    ...Array.from({ length: columns }, (_, head) => place(label("number", head), 1, head + 2)),
    place(label("corner", "head"), 1, 1));
  grid.style.setProperty("--heads", String(columns));
  return grid;
}

/** The size of thumbnails that fills the list. @param {HTMLElement} list @param {Layer[]} layers @param {boolean} isRanked */
export function thumbnailSize({ clientWidth, clientHeight }, layers, isRanked) {
  const heads = layers.reduce((most, layer) => Math.max(most, layer.heads), 0);
  const width = Math.floor((clientWidth - 24 - LABEL) / heads) - GAP;
  const height = Math.floor((clientHeight - 30) / ROWS) - 34;
  const least = isRanked ? SIZE.ranked : SIZE.least; // measures stand below ranked heads
  return Math.max(least, Math.min(SIZE.most, width, Math.max(SIZE.usual, height)));
}
