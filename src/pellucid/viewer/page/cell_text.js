// What maps say about their cells: tokens and weights in the status line, and all visible cells as a table.
import { truncate } from "./elements.js";
import { cellOf, spotsOf } from "./tile_cache.js";

const MOST_ROWS = 1e6;

/** A token, or those of a coarser cell: “the” (3), “the” to “king” (0–3).
 * @param {string[] | null} some @param {number} at @param {number} level @param {number} count tokens of this side
 */
export function tokenLabel(some, at, level = 0, count = Infinity) {
  const word = (/** @type {number} */ i) => (some ? `“${truncate(some[i], 24)}” ` : "");
  if (level === 0) return `${word(at) || "token "}(${at})`;
  const first = at - (at % 2 ** level);
  const last = Math.min(count, first + 2 ** level) - 1;
  if (first === last) return tokenLabel(some, first);
  return some ? `${word(first)}to ${word(last)}(${first}–${last})` : `tokens (${first}–${last})`;
}

/** The tokens of a cell. @param {{level: number, tiles: TileSource, words: TokenSides}} map @param {TokenCell} cell */
export function cellLabel({ level, tiles, words: { queries, keys } }, { query, key }) {
  return `${tokenLabel(queries, query, level, tiles.queries)} ${level > 0 ? "attend" : "attends"} to ${tokenLabel(keys, key, level, tiles.keys)}`;
}

/** The number of a cell: a weight, or pooled weights. @param {{level: number, tiles: TileSource, format: (value: number) => string}} map @param {TokenCell} cell */
export function cellValue({ level, tiles, format }, cell) {
  const value = cellOf(tiles, level, cell);
  if (value === undefined) return "…";
  const pooled = tiles.reduce === "max" ? "at most " : "on average ";
  return `${level > 0 ? pooled : ""}${format(value)}`;
}

/** The size of a map and how it is pooled. @param {import("./heatmap.js").Heatmap} map */
export function viewSummary({ tiles, level }) {
  const parts = [`${tiles.queries.toLocaleString()} × ${tiles.keys.toLocaleString()} weights`];
  if (level > 0) parts.push(`each cell is the ${tiles.reduce === "max" ? "maximum" : "mean"} of ${2 ** level} × ${2 ** level}`);
  if (tiles.problem) parts.push(tiles.problem);
  else if (tiles.isPending) parts.push("approximate, refining");
  return parts;
}

/**
 * The cells in view as a table: positions and tokens, or the first and last position of coarser cells.
 * @param {import("./heatmap.js").Heatmap[]} maps which all show the same place
 * @param {TokenSides} words
 * @param {[string, TileSource][]} columns the name of each number, and its tiles
 * @returns {Promise<Cell[][]>}
 */
export async function visibleCells(maps, words, columns) {
  const { side } = maps[0].tiles;
  const level = Math.min(...maps.map((one) => one.level));
  const shared = (/** @type {Side} */ name) => /** @type {Span} */ ( [maps[0].span[name][0], Math.min(...maps.map((one) => one.span[name][1]))]);
  const span = { queries: shared("queries"), keys: shared("keys") };
  const cells = (/** @type {Span} */ [first, end]) => [first >> level, ((end - 1) >> level) + 1];
  const [[top, bottom], [left, right]] = [cells(span.queries), cells(span.keys)];
  if ((bottom - top) * (right - left) > MOST_ROWS) throw new Error("more than a million cells are visible; zoom in first");
  const spots = spotsOf(span, level, side);
  const found = await Promise.all(columns.map(([, tiles]) => tiles.exact(spots)));
  const tileAt = new Map(spots.map(({ row, column }, i) => [`${row}/${column}`, found.map((tiles) => tiles[i])]));
  const place = (/** @type {number} */ cell, /** @type {Side} */ name) => {
    if (level === 0) return [cell, words[name]?.[cell]];
    const count = Math.min(...maps.map((one) => one.tiles[name]));
    return [cell << level, Math.min(count, (cell + 1) << level) - 1];
  };
  const heads = level === 0
    ? ["query position", "query token", "key position", "key token"]
    : ["first query", "last query", "first key", "last key"];
  /** @type {Cell[][]} */
  const rows = [[...heads, ...columns.map(([name]) => name)]];
  for (let down = top; down < bottom; down++)
    for (let across = left; across < right; across++) {
      const [row, column] = [Math.floor(down / side), Math.floor(across / side)];
      const numbers = (tileAt.get(`${row}/${column}`) ?? []).map(({ values, width }) => values[(down - row * side) * width + across - column * side]);
      rows.push([...place(down, "queries"), ...place(across, "keys"), ...numbers]);
    }
  return rows;
}
