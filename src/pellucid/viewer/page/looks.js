// What maps have in common: how they look, what is said of a cell, and its numbers as a table.
import { between } from "./camera.js";
import { button, choice, short } from "./parts.js";
import { words } from "./source.js";
import { cellOf, spotsOf } from "./tiles.js";

const FEW = 64; // tokens whose weights are told apart without logarithms
const MOST_ROWS = 1e6;
const CALM = 200; // milliseconds between changes of the address

/** How cells are pooled and coloured, as the address says. @param {{keys: number}} sheet */
export function looksOf(asked, { keys }) {
  const scale = asked.get("scale");
  return {
    reduce: asked.get("reduce") === "mean" ? "mean" : "max",
    isLog: ["log", "linear"].includes(scale) ? scale === "log" : keys > FEW,
  };
}

/** Choices of it; how cells are pooled only where there are such. */
export function lookChoices(looks, isPooled, changed) {
  const pooled = choice("A cell shows the", [["max", "largest"], ["mean", "mean"]], looks.reduce, (value) => { looks.reduce = value; changed(); });
  const scale = choice("Scale", [["log", "logarithmic"], ["linear", "linear"]], looks.isLog ? "log" : "linear", (value) => { looks.isLog = value === "log"; changed(); });
  return isPooled ? [pooled, scale] : [scale];
}

export function toldOf({ reduce, isLog }) {
  return { reduce, scale: isLog ? "log" : "linear" };
}

export function zoomButtons(camera, moved) {
  const ways = [["−", "Zoom out", () => camera.zoom(1 / 1.6)], ["+", "Zoom in", () => camera.zoom(1.6)], ["All", "Show the whole map", () => camera.fit()]];
  return ways.map(([text, title, call]) => button(text, title, () => { call(); moved(); }));
}

/** The words on both sides of a sheet, filled in when they are known. */
export function wordsOf({ source, about, signal }, { sheet, item }, known) {
  const found = { queries: null, keys: null };
  for (const side of Object.keys(found))
    words(source, sheet, item, side, about.sheets[sheet][side])
      .then((some) => { if (!signal.aborted) { found[side] = some; known(); } }, () => {}); // positions will do
  return found;
}

/** A token, or those of a coarser cell: “the” (3), “the” to “king” (0–3). */
export function named(some, at, level, count) {
  const word = (i) => (some ? `“${short(some[i], 24)}” ` : "");
  if (level === 0) return `${word(at) || "token "}(${at})`;
  const first = at - (at % 2 ** level);
  const last = Math.min(count, first + 2 ** level) - 1;
  if (first === last) return named(some, first, 0);
  return some ? `${word(first)}to ${word(last)}(${first}–${last})` : `tokens (${first}–${last})`;
}

/** What a cell is about. */
export function pair({ level, tiles, words: { queries, keys } }, { query, key }) {
  return `${named(queries, query, level, tiles.queries)} ${level > 0 ? "attend" : "attends"} to ${named(keys, key, level, tiles.keys)}`;
}

/** The number of a cell: a weight, or what is pooled. */
export function figure({ level, tiles, said }, cell) {
  const value = cellOf(tiles, level, cell);
  if (value === undefined) return "…";
  const pooled = tiles.reduce === "max" ? "at most " : "on average ";
  return `${level > 0 ? pooled : ""}${said(value)}`;
}

/** What is seen, and how. */
export function seen({ tiles, level }) {
  const parts = [`${tiles.queries.toLocaleString()} × ${tiles.keys.toLocaleString()} weights`];
  if (level > 0) parts.push(`a cell is the ${tiles.reduce === "max" ? "largest" : "mean"} of ${2 ** level} × ${2 ** level}`);
  if (tiles.problem) parts.push(tiles.problem);
  else if (tiles.isPending) parts.push("sampled, being made exact");
  return parts;
}

/**
 * The cells in view as a table: positions and tokens, or the first and last position of coarser cells.
 * @param {import("./heatmap.js").Heatmap[]} maps of which all show the same place
 * @param {{queries: string[] | null, keys: string[] | null}} words
 * @param {[string, import("./tiles.js").Tiles][]} columns names of numbers, and where they are from
 */
export async function rowsOf(maps, words, columns) {
  const { side } = maps[0].tiles;
  const level = Math.min(...maps.map((one) => one.level));
  const shared = (name) => [maps[0].span[name][0], Math.min(...maps.map((one) => one.span[name][1]))];
  const span = { queries: shared("queries"), keys: shared("keys") };
  const cells = ([first, end]) => [first >> level, ((end - 1) >> level) + 1];
  const [[top, bottom], [left, right]] = [cells(span.queries), cells(span.keys)];
  if ((bottom - top) * (right - left) > MOST_ROWS) throw new Error("more than a million cells are in view; zoom in");
  const spots = spotsOf(span, level, side);
  const found = await Promise.all(columns.map(([, tiles]) => tiles.exact(spots)));
  const tileAt = new Map(spots.map(({ row, column }, i) => [`${row}/${column}`, found.map((tiles) => tiles[i])]));
  const place = (cell, name) => {
    if (level === 0) return [cell, words[name]?.[cell]];
    const count = Math.min(...maps.map((one) => one.tiles[name]));
    return [cell << level, Math.min(count, (cell + 1) << level) - 1];
  };
  const heads = level === 0
    ? ["query position", "query token", "key position", "key token"]
    : ["first query", "last query", "first key", "last key"];
  const rows = [[...heads, ...columns.map(([name]) => name)]];
  for (let down = top; down < bottom; down++)
    for (let across = left; across < right; across++) {
      const [row, column] = [Math.floor(down / side), Math.floor(across / side)];
      const numbers = tileAt.get(`${row}/${column}`).map(({ values, width }) => values[(down - row * side) * width + across - column * side]);
      rows.push([...place(down, "queries"), ...place(across, "keys"), ...numbers]);
    }
  return rows;
}

/** A call at most every so often, the last one always. */
export function seldom(call) {
  let next = 0;
  let waits = 0;
  return () => {
    clearTimeout(waits);
    const pause = between(0, next - performance.now(), CALM);
    waits = setTimeout(() => { next = performance.now() + CALM; call(); }, pause);
  };
}
