// The Map view: one head, from the whole document to single weights, with the row and column of one beside it.
import { Camera } from "./camera.js";
import { cellLabel, cellValue, viewSummary, visibleCells } from "./cell_text.js";
import { displayControls, displayState, readDisplayOptions, zoomButtons } from "./display_options.js";
import { createElement, headDropdown, itemDropdown } from "./elements.js";
import { KEYS, steer } from "./gestures.js";
import { HeadText } from "./head_text.js";
import { Heatmap } from "./heatmap.js";
import { Profiles } from "./profiles.js";
import { TileCache } from "./tile_cache.js";
import { tokenSides } from "./tokens.js";
import { integerParam, optionalInteger, throttle } from "./url_state.js";

/** @param {Page} page */
export async function map(page) {
  const { about, params, view, controls, signal } = page;
  const layerIndex = integerParam(params, "layer", about.layers.length - 1);
  const layer = about.layers[layerIndex];
  const place = {
    layer: layerIndex,
    item: integerParam(params, "item", layer.items - 1),
    head: integerParam(params, "head", layer.heads - 1),
  };
  const looks = readDisplayOptions(params, layer);
  const camera = new Camera(layer.queries, layer.keys);
  const tiles = new TileCache(page, place, () => heatmap.draw());
  const words = tokenSides(page, place, () => {
    if (heatmap.pinned) profiles.tell(heatmap.pinned);
    shadeText();
    heatmap.layOut();
    heatmap.draw();
  });
  const heatmap = new Heatmap(page, { tiles, camera, words, name: `Attention map. ${KEYS}, Enter pins a row and a column, Escape unpins them.`, painted });
  const profiles = new Profiles(page, place, words, { changed: () => { heatmap.draw(); shadeText(); }, unpin: () => pin(null) });
  const text = new HeadText(page, place);
  page.theme.onChange(shadeText);
  const saveState = throttle(() => page.saveState(state()));

  controls.append(
    headDropdown(about, place, (newLayer, head) => page.go("map", { ...state(), layer: newLayer, head })),
    itemDropdown(about.layers, place.layer, place.item, (item) => page.go("map", { ...state(), item })),
    ...displayControls(looks, tiles.top > 0, dress),
    ...zoomButtons(camera, () => heatmap.draw()),
  );
  view.append(createElement("div", { className: "mapping" }, heatmap.element,
    createElement("div", { className: "beside", tabIndex: 0, data: { role: "region", "aria-label": "About the head" } }, text.element, profiles.element)));
  camera.read(params);
  dress();
  const query = optionalInteger(params, "query", layer.queries - 1);
  const key = optionalInteger(params, "key", layer.keys - 1);
  if (query !== null && key !== null) pin({ query, key });
  steer(heatmap, {
    signal,
    moved: () => heatmap.draw(),
    pointed: (cell) => { heatmap.cursor = cell; heatmap.draw(); },
    picked: pin,
  });
  page.setExport({ csv: () => visibleCells([heatmap], words, [[heatmap.level === 0 ? "weight" : looks.reduce, tiles]]), needs });

  function state() {
    return { ...place, ...displayState(looks), ...camera.state(), ...heatmap.pinned };
  }

  function dress() {
    tiles.reduce = looks.reduce;
    heatmap.isLog = looks.isLog;
    heatmap.draw();
  }

  function shadeText() {
    text.paint(words.keys, profiles.row);
  }

  function pin(cell) {
    heatmap.pinned = cell;
    heatmap.profiles = cell && profiles;
    profiles.show(cell);
    shadeText();
    heatmap.layOut();
    heatmap.draw();
  }

  function needs() {
    const paths = [...heatmap.spots, heatmap.whole].map((spot) => tiles.path(spot));
    return new Set(heatmap.pinned ? [...paths, ...Object.values(profiles.paths(heatmap.pinned))] : paths);
  }

  function painted() {
    const { cursor } = heatmap;
    page.setStatus([...(cursor ? [`${cellLabel(heatmap, cursor)}: ${cellValue(heatmap, cursor)}`] : []), ...viewSummary(heatmap)].join(" · "));
    saveState();
  }
}
