// Pointer, wheel, touch and keyboard control of a map.
import { between } from "./camera.js";

/** @type {Record<string, number>} */
const MOVED = { mouse: 4, pen: 6, touch: 10 }; // pixels until a click is a drag
const TWICE = 260; // milliseconds within which two clicks are one double click
const NEARER = 1.6;
/** @type {Record<string, [number, number]>} */
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** What screen readers say of a map's keys. */
export const KEYS = "Arrow keys move between cells, Shift and arrow keys pan, plus and minus zoom, 0 shows the whole map";

/**
 * Let hands steer a map.
 * @param {import("./heatmap.js").Heatmap} map
 * @param {object} calls
 * @param {AbortSignal} calls.signal
 * @param {() => void} calls.moved another part is to be shown
 * @param {(cell: {query: number, key: number} | null) => void} calls.pointed
 * @param {(cell: {query: number, key: number} | null) => void} [calls.picked] a click, Enter; Escape with none
 */
export function steer(map, { signal, moved, pointed, picked = () => {} }) {
  const { canvas, camera } = map;
  /** @type {Map<number, [number, number]>} */
  const hands = new Map(); // pointers that are down, and where they are
  /** @type {[number, number] | null} */
  let down = null; // where the first came down, until it has moved: perhaps a click
  let isMini = false;
  let apart = 0; // pixels between two fingers
  let waits = 0;

  /** Places in the map's own pixels. */
  const inMap = (/** @type {[number, number]} */ [x, y]) => /** @type {[number, number]} */ ([x - map.margin.left, y - map.margin.top]);
  const zoom = (/** @type {number} */ factor, /** @type {[number, number]} */ at) => { camera.zoom(factor, ...inMap(at)); moved(); };
  const placeOf = (/** @type {MouseEvent} */ event) => /** @type {[number, number]} */ ([event.offsetX, event.offsetY]);

  on("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    const quick = event.ctrlKey ? 6 : 1; // two fingers on a touch pad
    zoom(1.0015 ** -between(-600, event.deltaY * lines * quick, 600), placeOf(event));
    pointed(map.cellAt(...placeOf(event)));
  });

  on("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const at = placeOf(event);
    hands.set(event.pointerId, at);
    apart = 0;
    const mini = map.miniAt(...at);
    isMini = mini !== null;
    down = isMini || hands.size > 1 ? null : at;
    if (mini) { camera.centre(mini); moved(); }
  });

  on("pointermove", (event) => {
    const at = placeOf(event);
    const before = hands.get(event.pointerId);
    if (before === undefined) {
      pointed(map.cellAt(...at));
      return;
    }
    if (isMini) {
      const mini = map.miniAt(...at);
      if (mini) { camera.centre(mini); moved(); }
      return;
    }
    if (down && Math.hypot(at[0] - down[0], at[1] - down[1]) <= MOVED[event.pointerType]) return;
    down = null;
    hands.set(event.pointerId, at);
    const share = 1 / hands.size; // each finger moves its part
    camera.move((before[0] - at[0]) * share, (before[1] - at[1]) * share);
    if (hands.size === 2) pinch();
    moved();
  });

  for (const name of /** @type {("pointerup" | "pointercancel")[]} */ (["pointerup", "pointercancel"]))
    on(name, (event) => {
      hands.delete(event.pointerId);
      apart = 0;
      if (down && name === "pointerup") clicked(down);
      down = null;
      isMini = false;
    });

  on("pointerleave", (event) => { if (event.pointerType === "mouse" && !canvas.matches(":focus")) pointed(null); });
  on("keydown", (event) => { if (pressed(event)) event.preventDefault(); });

  /** @template {keyof HTMLElementEventMap} Name @param {Name} name @param {(event: HTMLElementEventMap[Name]) => void} call */
  function on(name, call) {
    canvas.addEventListener(name, call, { signal, passive: false });
  }

  function pinch() {
    const [a, b] = [...hands.values()];
    const now = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (apart > 0 && now > 0) camera.zoom(now / apart, ...inMap([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]));
    apart = now;
  }

  /** One click picks a cell, once it is clear that it is not the first of two, which zoom. */
  /** @param {[number, number]} at */
  function clicked(at) {
    const cell = map.cellAt(...at);
    pointed(cell);
    clearTimeout(waits);
    if (waits) {
      waits = 0;
      zoom(NEARER ** 2, at);
      return;
    }
    waits = setTimeout(() => {
      waits = 0;
      if (cell && !signal.aborted) picked(cell);
    }, TWICE);
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether the key does something here */
  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const way = WAYS[event.key];
    if (way && event.shiftKey) {
      camera.pan(way[0] / 4, way[1] / 4);
      moved();
    } else if (way) step(way);
    else if (["+", "=", "-"].includes(event.key)) {
      const { cursor } = map;
      const at = cursor && [camera.x(cursor.key + 0.5), camera.y(cursor.query + 0.5)];
      camera.zoom(event.key === "-" ? 1 / NEARER : NEARER, ...(at ?? []));
      moved();
    } else if (event.key === "0") {
      camera.fit();
      moved();
    } else if (event.key === "Enter" || event.key === " ") picked(map.cursor);
    else if (event.key === "Escape") picked(null);
    else return false;
    return true;
  }

  /** To the next cell; further where cells are small. */
  /** @param {[number, number]} direction */
  function step([x, y]) {
    const cell = 2 ** map.level;
    const size = cell * Math.max(1, Math.round(6 / (camera.high * cell)));
    const { queries: [above], keys: [left] } = camera.span;
    /** @type {TokenCell} */
    const from = map.cursor ?? { key: left - x * size, query: above - y * size };
    const next = { key: between(0, from.key + x * size, map.tiles.keys - 1), query: between(0, from.query + y * size, map.tiles.queries - 1) };
    camera.reveal(next);
    pointed(next);
    moved();
  }
}
