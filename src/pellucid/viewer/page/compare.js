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
  if (maps.length === 0) {
    page.say("Maps of different sizes have no difference");
    keep();
  }

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
    if (maps.length === 0) throw new Error("there is no difference");
    const columns = [["first", tiles[0]], ["second", tiles[1]]];
    return rowsOf(maps, both, isDifference ? [...columns, ["difference", maps[0].tiles]] : columns);
  }

  function needs() {
    return new Set(maps.flatMap((one) => [...one.spots, one.whole].flatMap((spot) => (isDifference ? tiles : [one.tiles]).map((each) => each.path(spot)))));
  }

  function painted() {
    const { cursor } = maps[0];
    page.say([...(cursor ? [pointed(cursor)] : []), ...new Set(maps.flatMap(seen))].join(" · "));
    keep();
  }

  /** The numbers of both in one line, each with its own words where they differ. */
  function pointed(cell) {
    const numbers = [];
    const pairs = new Set();
    for (const [i, name] of ["first", "second"].entries()) {
      const each = { level: Math.min(maps[0].level, tiles[i].top), tiles: tiles[i], words: words[i], said: percent };
      if (isInside(tiles[i], cell)) pairs.add(pair(each, cell));
      numbers.push(`${name} ${isInside(tiles[i], cell) ? figure(each, cell) : "has no such weight"}`);
    }
    if (isDifference) numbers.push(`difference ${figure(maps[0], cell)}`);
    return `${[...pairs].join("; ")}: ${numbers.join(", ")}`;
  }
}

function isInside({ queries, keys }, { query, key }) {
  return query < queries && key < keys;
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

/** The head of another recording that is most like it, or the next one. */
function other(sheets, { sheet, item, head }) {
  const of = sheets[sheet];
  const alike = (one) => ["layer", "is_cross", "stack", "queries", "keys"].filter((name) => one[name] === of[name]).length;
  const elsewhere = sheets.filter((one) => one.recording !== of.recording && head < one.heads).sort((one, two) => alike(two) - alike(one));
  const at = (found, newHead) => ({ sheet: found, item: Math.min(item, sheets[found].items - 1), head: newHead });
  if (elsewhere.length > 0) return at(sheets.indexOf(elsewhere[0]), head);
  return of.heads > 1 ? at(sheet, (head + 1) % of.heads) : at((sheet + 1) % sheets.length, 0);
}

/** Words of the first, and of the second beside them where they differ. */
function joined(first, second) {
  const join = (one, two) => one && two && one.map((word, i) => (two[i] === undefined || word === two[i] ? word : `${word.trim()}/${two[i].trim()}`));
  return { queries: join(first.queries, second.queries), keys: join(first.keys, second.keys) };
}
