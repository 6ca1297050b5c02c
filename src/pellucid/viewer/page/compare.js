// The Compare view: two heads of any recordings, side by side or as a difference; they move together.
import { Camera } from "./camera.js";
import { cellLabel, cellValue, viewSummary, visibleCells } from "./cell_text.js";
import { percentOrDash } from "./colours.js";
import { displayControls, displayState, readDisplayOptions, zoomButtons } from "./display_options.js";
import { createElement, dropdown, headDropdown, itemDropdown } from "./elements.js";
import { KEYS, steer } from "./gestures.js";
import { Heatmap } from "./heatmap.js";
import { DifferenceTiles, mostOf, TileCache } from "./tile_cache.js";
import { tokenSides } from "./tokens.js";
import { throttle } from "./url_state.js";

const SIDES = ["a", "b"];
const NAMES = { a: "First", b: "Second" };

/** @param {Page} page */
export async function compare(page) {
  const { about, params, view, controls, signal } = page;
  const { layers } = about;
  const places = await placesOf(page);
  signal.throwIfAborted();
  const sizes = SIDES.map((side) => layers[places[side].layer]);
  const isAlike = sizes[0].queries === sizes[1].queries && sizes[0].keys === sizes[1].keys;
  const isDifference = params.get("show") === "difference";
  const queries = Math.max(...sizes.map((one) => one.queries));
  const keys = Math.max(...sizes.map((one) => one.keys));
  const looks = readDisplayOptions(params, { keys });
  const camera = new Camera(queries, keys);
  const draw = () => maps.forEach((one) => one.draw());
  const tiles = SIDES.map((side) => new TileCache(page, places[side], draw));
  const words = SIDES.map((side) => tokenSides(page, places[side], () => {
    Object.assign(both, joined(words[0], words[1]));
    maps.forEach((one) => one.layOut());
    draw();
  }));
  /** @type {TokenSides} */
  const both = { queries: null, keys: null }; // words of the first, and of the second where they differ
  const maps = mapsOf();
  const saveState = throttle(() => page.saveState(state()));

  controls.append(
    dropdown("Show", [["both", "side by side"], ["difference", "difference"]], isDifference ? "difference" : "both", (show) => page.go("compare", { ...state(), show })),
    ...displayControls(looks, !isDifference && Math.max(tiles[0].top, tiles[1].top) > 0, dress),
    ...zoomButtons(camera, draw),
  );
  const heads = SIDES.map(headOf);
  const shown = maps.map((one) => one.element);
  view.append(createElement("div", { className: isDifference ? "mapping" : "mapping paired" }, ...(isDifference
    ? [createElement("div", { className: "which" }, heads[0], "minus", heads[1]), shown[0] ?? none()]
    : heads.map((one, i) => createElement("div", {}, one, shown[i])))));
  camera.read(params);
  dress();
  for (const one of maps)
    steer(one, { signal, moved: draw, pointed: (cell) => { maps.forEach((each) => { each.cursor = cell; }); draw(); } });
  page.setExport({ csv, needs });
  if (maps.length === 0) {
    page.setStatus("Only maps of the same size can be subtracted");
    saveState();
  }

  function mapsOf() {
    if (isDifference && !isAlike) return [];
    if (isDifference) {
      const difference = new DifferenceTiles(tiles[0], tiles[1]);
      return [new Heatmap(page, { tiles: difference, camera, words: both, isSigned: true, name: `Difference of two attention maps. ${KEYS}.`, painted })];
    }
    const most = () => Math.max(...maps.map((one) => mostOf(one.tiles, one.spots)));
    return tiles.map((one, i) => new Heatmap(page, { tiles: one, camera, words: words[i], most, name: `${NAMES[SIDES[i]]} attention map. ${KEYS}.`, painted }));
  }

  /** Which head, and which text of its batch. @param {string} side */
  function headOf(side) {
    const { layer, item, head } = places[side];
    const change = (place) => page.go("compare", { ...state(), [side]: place.join(".") });
    return createElement("div", { className: "which" },
      headDropdown(about, places[side], (newLayer, newHead) => change([newLayer, Math.min(item, layers[newLayer].items - 1), newHead]), NAMES[side]),
      itemDropdown(layers, layer, item, (newItem) => change([layer, newItem, head])));
  }

  function none() {
    const [first, second] = sizes.map((one) => `${one.queries.toLocaleString()} × ${one.keys.toLocaleString()}`);
    return createElement("p", { className: "complaint", textContent: `The first head has ${first} weights and the second ${second}. Only maps of the same size can be subtracted; show them side by side instead.` });
  }

  function dress() {
    for (const one of tiles) one.reduce = isDifference ? "mean" : looks.reduce;
    for (const one of maps) one.isLog = looks.isLog;
    draw();
  }

  function state() {
    const at = Object.fromEntries(SIDES.map((side) => [side, Object.values(places[side]).join(".")]));
    return { ...at, show: isDifference ? "difference" : "both", ...displayState(looks), ...camera.state() };
  }

  /** Numbers of both, wherever there are both. */
  function csv() {
    if (maps.length === 0) throw new Error("these maps cannot be subtracted");
    /** @type {[string, TileSource][]} */
    const columns = [["first", tiles[0]], ["second", tiles[1]]];
    return visibleCells(maps, both, isDifference ? [...columns, ["difference", maps[0].tiles]] : columns);
  }

  function needs() {
    return new Set(maps.flatMap((one) => [...one.spots, one.whole].flatMap((spot) => (isDifference ? tiles : [one.tiles]).map((each) => each.path(spot)))));
  }

  function painted() {
    const { cursor } = maps[0];
    page.setStatus([...(cursor ? [pointed(cursor)] : []), ...new Set(maps.flatMap(viewSummary))].join(" · "));
    saveState();
  }

  /** The numbers of both in one line, each with its own words where they differ. @param {TokenCell} cell */
  function pointed(cell) {
    const numbers = [];
    const pairs = new Set();
    for (const [i, name] of ["first", "second"].entries()) {
      const each = { level: Math.min(maps[0].level, tiles[i].top), tiles: tiles[i], words: words[i], format: percentOrDash };
      if (isInside(tiles[i], cell)) pairs.add(cellLabel(each, cell));
      numbers.push(`${name} ${isInside(tiles[i], cell) ? cellValue(each, cell) : "has no such cell"}`);
    }
    if (isDifference) numbers.push(`difference ${cellValue(maps[0], cell)}`);
    return `${[...pairs].join("; ")}: ${numbers.join(", ")}`;
  }
}

/** @param {TileSource} tiles @param {TokenCell} cell */
function isInside({ queries, keys }, { query, key }) {
  return query < queries && key < keys;
}

/** Where both heads are: two different ones unless the address says so. @param {Page} page */
async function placesOf({ params, source, about: { layers, recordings } }) {
  const known = (text) => {
    const [layer, item, head] = /^\d{1,9}(\.\d{1,9}){2}$/.test(text ?? "") ? text.split(".").map(Number) : [];
    const of = layers[layer];
    return of && item < of.items && head < of.heads ? { layer, item, head } : null;
  };
  const telling = async (recording) => {
    const { telling: found } = await source.json(`telling/${recording}`).catch(() => ({ telling: null })); // as in older files
    return found && { layer: found.layer, item: 0, head: found.head };
  };
  const asked = known(params.get("a")) ?? (params.has("layer") ? known(["layer", "item", "head"].map((name) => params.get(name) ?? 0).join(".")) : null);
  const a = asked ?? (await telling(0)) ?? { layer: 0, item: 0, head: 0 };
  const b = known(params.get("b")) ?? other(layers, a);
  const [one, two] = [a, b].map(({ layer }) => layers[layer].recording);
  // Another model's head of the same number does something else.
  const isOther = asked === null && !params.has("b") && recordings[one].model !== recordings[two].model;
  return { a, b: (isOther && (await telling(two))) || b };
}

/** The head of another recording that is most like it, or the next one. @param {Layer[]} layers @param {HeadPlace} place */
function other(layers, { layer, item, head }) {
  const of = layers[layer];
  const alike = (one) => ["number", "is_cross", "stack", "queries", "keys"].filter((name) => one[name] === of[name]).length;
  const elsewhere = layers.filter((one) => one.recording !== of.recording && head < one.heads).sort((one, two) => alike(two) - alike(one));
  const at = (found, newHead) => ({ layer: found, item: Math.min(item, layers[found].items - 1), head: newHead });
  if (elsewhere.length > 0) return at(layers.indexOf(elsewhere[0]), head);
  return of.heads > 1 ? at(layer, (head + 1) % of.heads) : at((layer + 1) % layers.length, 0);
}

/** Words of the first, and of the second beside them where they differ. @param {TokenSides} first @param {TokenSides} second */
function joined(first, second) {
  const join = (one, two) => one && two && one.map((word, i) => (two[i] === undefined || word === two[i] ? word : `${word.trim()}/${two[i].trim()}`));
  return { queries: join(first.queries, second.queries), keys: join(first.keys, second.keys) };
}
