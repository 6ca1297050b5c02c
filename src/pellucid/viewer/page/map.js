// One head as a map: from the whole document to single weights, with the row and column of one beside it.
import * as address from "./address.js";
import { Camera } from "./camera.js";
import { KEYS, steer } from "./gestures.js";
import { Heatmap } from "./heatmap.js";
import { figure, lookChoices, looksOf, pair, rowsOf, seen, seldom, toldOf, wordsOf, zoomButtons } from "./looks.js";
import { headChoice, itemChoice, made } from "./parts.js";
import { Profiles } from "./profiles.js";
import { Tiles } from "./tiles.js";

export async function map(page) {
  const { about, asked, view, controls, signal } = page;
  const sheetNumber = address.whole(asked, "sheet", about.sheets.length - 1);
  const sheet = about.sheets[sheetNumber];
  const place = {
    sheet: sheetNumber,
    item: address.whole(asked, "item", sheet.items - 1),
    head: address.whole(asked, "head", sheet.heads - 1),
  };
  const looks = looksOf(asked, sheet);
  const camera = new Camera(sheet.queries, sheet.keys);
  const tiles = new Tiles(page, place, () => heatmap.draw());
  const words = wordsOf(page, place, () => {
    if (heatmap.pinned) profiles.tell(heatmap.pinned);
    heatmap.layOut();
    heatmap.draw();
  });
  const heatmap = new Heatmap(page, { tiles, camera, words, name: `Attention map. ${KEYS}, Enter pins a row and a column, Escape unpins them.`, painted });
  const profiles = new Profiles(page, place, words, { changed: () => heatmap.draw(), unpin: () => pin(null) });
  const keep = seldom(() => page.keep(told()));

  controls.append(
    headChoice(about.sheets, place.sheet, place.head, (newSheet, head) => page.go("map", { ...told(), sheet: newSheet, head }), { recordings: about.recordings }),
    itemChoice(about.sheets, place.sheet, place.item, (item) => page.go("map", { ...told(), item })),
    ...lookChoices(looks, tiles.top > 0, dress),
    ...zoomButtons(camera, () => heatmap.draw()),
  );
  view.append(made("div", { className: "mapping" }, heatmap.element, profiles.element));
  camera.read(asked);
  dress();
  const pinned = ["query", "key"].map((name) => (asked.has(name) ? address.whole(asked, name, sheet[name === "key" ? "keys" : "queries"] - 1, null) : null));
  if (!pinned.includes(null)) pin({ query: pinned[0], key: pinned[1] });
  steer(heatmap, {
    signal,
    moved: () => heatmap.draw(),
    pointed: (cell) => { heatmap.cursor = cell; heatmap.draw(); },
    picked: pin,
  });
  page.offer({ csv: () => rowsOf([heatmap], words, [[heatmap.level === 0 ? "weight" : looks.reduce, tiles]]), needs });

  function told() {
    return { ...place, ...toldOf(looks), ...camera.told(), ...heatmap.pinned };
  }

  function dress() {
    tiles.reduce = looks.reduce;
    heatmap.isLog = looks.isLog;
    heatmap.draw();
  }

  function pin(cell) {
    heatmap.pinned = cell;
    heatmap.profiles = cell && profiles;
    profiles.show(cell);
    heatmap.layOut();
    heatmap.draw();
  }

  function needs() {
    const paths = [...heatmap.spots, heatmap.whole].map((spot) => tiles.path(spot));
    return new Set(heatmap.pinned ? [...paths, ...Object.values(profiles.paths(heatmap.pinned))] : paths);
  }

  function painted() {
    const { cursor } = heatmap;
    page.say([...(cursor ? [`${pair(heatmap, cursor)}: ${figure(heatmap, cursor)}`] : []), ...seen(heatmap)].join(" · "));
    keep();
  }
}
