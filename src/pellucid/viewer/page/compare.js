// Two heads, of any recordings: side by side, where they move together, or what one gives more than the other.
import * as address from "./address.js";
import { Camera } from "./camera.js";
import { percent } from "./colours.js";
import { KEYS, steer } from "./gestures.js";
import { Heatmap } from "./heatmap.js";
import { figure, lookChoices, looksOf, pair, rowsOf, seen, seldom, toldOf, wordsOf, zoomButtons } from "./looks.js";
import { choice, headChoice, itemChoice, made } from "./parts.js";
import { Difference, Tiles, mostOf } from "./tiles.js";

const SIDES = ["a", "b"];
const NAMES = { a: "First", b: "Second" };

export async function compare(page) {
  const { about, asked, view, controls, signal } = page;
  const { sheets } = about;
  const places = placesOf(page);
  const sizes = SIDES.map((side) => sheets[places[side].sheet]);
  const isAlike = sizes[0].queries === sizes[1].queries && sizes[0].keys === sizes[1].keys;
  const isDifference = asked.get("show") === "difference";
  const queries = Math.max(...sizes.map((one) => one.queries));
  const keys = Math.max(...sizes.map((one) => one.keys));
  const looks = looksOf(asked, { keys });
  const camera = new Camera(queries, keys);
  const draw = () => maps.forEach((one) => one.draw());
  const tiles = SIDES.map((side) => new Tiles(page, places[side], draw));
  const words = SIDES.map((side) => wordsOf(page, places[side], () => {
    Object.assign(both, joined(...words));
    maps.forEach((one) => one.layOut());
    draw();
  }));
  const both = { queries: null, keys: null }; // words of the first, and of the second where they differ
  const maps = mapsOf();
  const keep = seldom(() => page.keep(told()));

  controls.append(
    choice("Show", [["both", "side by side"], ["difference", "the difference"]], isDifference ? "difference" : "both", (show) => page.go("compare", { ...told(), show })),
    ...lookChoices(looks, !isDifference && Math.max(tiles[0].top, tiles[1].top) > 0, dress),
    ...zoomButtons(camera, draw),
  );
  const heads = SIDES.map(headOf);
  const shown = maps.map((one) => one.element);
  view.append(made("div", { className: isDifference ? "mapping" : "mapping paired" }, ...(isDifference
    ? [made("div", { className: "which" }, heads[0], "minus", heads[1]), shown[0] ?? none()]
    : heads.map((one, i) => made("div", {}, one, shown[i])))));
  camera.read(asked);
  dress();
  for (const one of maps)
    steer(one, { signal, moved: draw, pointed: (cell) => { maps.forEach((each) => { each.cursor = cell; }); draw(); } });
  page.offer({ csv, needs });
  if (maps.length === 0) keep();

  function mapsOf() {
    if (isDifference && !isAlike) return [];
    if (isDifference) {
      const difference = new Difference(...tiles);
      return [new Heatmap(page, { tiles: difference, camera, words: both, isSigned: true, name: `Difference of two attention maps. ${KEYS}.`, painted })];
    }
    const most = () => Math.max(...maps.map((one) => mostOf(one.tiles, one.spots)));
    return tiles.map((one, i) => new Heatmap(page, { tiles: one, camera, words: words[i], most, name: `${NAMES[SIDES[i]]} attention map. ${KEYS}.`, painted }));
  }

  /** Which head, and which text of its batch. */
  function headOf(side) {
    const { sheet, item, head } = places[side];
    const change = (place) => page.go("compare", { ...told(), [side]: place.join(".") });
    return made("div", { className: "which" },
      headChoice(sheets, sheet, head, (newSheet, newHead) => change([newSheet, Math.min(item, sheets[newSheet].items - 1), newHead]), { name: NAMES[side], recordings: about.recordings }),
      itemChoice(sheets, sheet, item, (newItem) => change([sheet, newItem, head])));
  }

  function none() {
    const [first, second] = sizes.map((one) => `${one.queries.toLocaleString()} × ${one.keys.toLocaleString()}`);
    return made("p", { className: "complaint", textContent: `The first head has ${first} weights and the second ${second}: only maps of one size have a difference. Show them side by side.` });
  }

  function dress() {
    for (const one of tiles) one.reduce = isDifference ? "mean" : looks.reduce;
    for (const one of maps) one.isLog = looks.isLog;
    draw();
  }

  function told() {
    const at = Object.fromEntries(SIDES.map((side) => [side, Object.values(places[side]).join(".")]));
    return { ...at, show: isDifference ? "difference" : "both", ...toldOf(looks), ...camera.told() };
  }

  /** Numbers of both, wherever there are both. */
  function csv() {
    if (maps.length === 0) throw new Error("maps of different sizes have no difference");
    const columns = [["first", tiles[0]], ["second", tiles[1]]];
    return rowsOf(maps, both, isDifference ? [...columns, ["difference", maps[0].tiles]] : columns);
  }

  function needs() {
    return new Set(maps.flatMap((one) => [...one.spots, one.whole].flatMap((spot) => (isDifference ? tiles : [one.tiles]).map((each) => each.path(spot)))));
  }

  function painted() {
    const { cursor } = maps[0];
    page.say([...(cursor ? [pointed(cursor)] : []), ...seen(maps[0])].join(" · "));
    keep();
  }

  /** The numbers of both in one line, each with its own words where they differ. */
  function pointed(cell) {
    const each = tiles.map((one, i) => ({ level: Math.min(maps[0].level, one.top), tiles: one, words: words[i], said: percent }));
    const [first, second] = each.map((one) => `${figure(one, cell)}`);
    const pairs = each.map((one) => pair(one, cell));
    const numbers = `${first}, second ${second}${isDifference ? `, difference ${figure(maps[0], cell)}` : ""}`;
    return pairs[0] === pairs[1] ? `${pairs[0]}: first ${numbers}` : `${pairs[0]}; ${pairs[1]}: first ${numbers}`;
  }
}

/** Where both heads are: two different ones unless the address says so. */
function placesOf({ asked, about: { sheets } }) {
  const known = (said) => {
    const [sheet, item, head] = /^\d{1,9}(\.\d{1,9}){2}$/.test(said ?? "") ? said.split(".").map(Number) : [];
    const of = sheets[sheet];
    return of && item < of.items && head < of.heads ? { sheet, item, head } : null;
  };
  const a = known(asked.get("a")) ?? known(["sheet", "item", "head"].map((name) => asked.get(name) ?? 0).join(".")) ?? { sheet: 0, item: 0, head: 0 };
  return { a, b: known(asked.get("b")) ?? other(sheets, a) };
}

/** The same head of another recording, or the next one. */
function other(sheets, { sheet, item, head }) {
  const of = sheets[sheet];
  const elsewhere = sheets.findIndex((one) => one.recording !== of.recording && one.stack === of.stack && one.layer === of.layer && one.is_cross === of.is_cross && head < one.heads);
  if (elsewhere >= 0) return { sheet: elsewhere, item: Math.min(item, sheets[elsewhere].items - 1), head };
  if (of.heads > 1) return { sheet, item, head: (head + 1) % of.heads };
  const next = (sheet + 1) % sheets.length;
  return { sheet: next, item: Math.min(item, sheets[next].items - 1), head: 0 };
}

/** Words of the first, and of the second beside them where they differ. */
function joined(first, second) {
  const join = (one, two) => one && two && one.map((word, i) => (two[i] === undefined || word === two[i] ? word : `${word.trim()}/${two[i].trim()}`));
  return { queries: join(first.queries, second.queries), keys: join(first.keys, second.keys) };
}
