// One head as a map: from the whole document to single weights, drawn from tiles.
import * as address from "./address.js";
import { words } from "./source.js";
import { percent, picture, rounded, shade, share } from "./colours.js";
import { button, choice, headChoice, made } from "./parts.js";

const LARGEST = 96; // pixels of a weight
const MARGIN = { left: 92, top: 76, right: 12, bottom: 12 };
const LABELLED = 10; // pixels of a weight from which its tokens are written
const NUMBERED = 44; // and its percentage
const MINIMAP = 120;
const KEPT = 300; // tiles

export async function map(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  const place = {};
  place.sheet = address.whole(asked, "sheet", about.sheets.length - 1);
  const sheet = about.sheets[place.sheet];
  place.head = address.whole(asked, "head", sheet.heads - 1);
  place.item = address.whole(asked, "item", sheet.items - 1);
  let reduce = asked.get("reduce") === "mean" ? "mean" : "max";
  let isLog = asked.get("scale") !== "linear";
  const { queries, keys } = sheet;
  const top = Math.max(0, Math.ceil(Math.log2(Math.max(queries, keys) / about.side)));
  const canvas = made("canvas", { className: "map", tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Attention map. Arrows move from cell to cell, shift and arrows move the map, plus and minus zoom, 0 shows all of it.");
  view.append(canvas);
  const screen = canvas.getContext("2d");
  canvas.paint = paint;
  const tiles = new Map();
  const images = new Map();
  const [across, down] = [await words(source, place.sheet, place.item, "keys", keys), await words(source, place.sheet, place.item, "queries", queries)];
  let width = 0, height = 0;
  let zoom = 1, left = 0, above = 0; // pixels of a weight; the key and query in the corner
  let cursor = null;
  let scaleTop = 1;
  let isDrawn = false;

  controls.append(
    headChoice(about.sheets, place.sheet, place.head, (newSheet, head) => {
      page.go("map", { ...told(), sheet: newSheet, head });
    }),
    choice("A cell shows the", [["max", "largest"], ["mean", "mean"]], reduce, (value) => { reduce = value; again(); }),
    choice("Scale", [["log", "logarithmic"], ["linear", "linear"]], isLog ? "log" : "linear", (value) => { isLog = value === "log"; again(); }),
    button("−", "Zoom out", () => zoomAt(1 / 1.6)),
    button("+", "Zoom in", () => zoomAt(1.6)),
    button("All", "Show the whole map", () => { fit(); draw(); }),
  );

  const resized = new ResizeObserver(() => { measure(); draw(); });
  measure();
  fit();
  if (asked.has("zoom")) {
    const given = ["zoom", "x", "y"].map((name) => Number(asked.get(name)));
    if (given.every(Number.isFinite) && given[0] > 0) [zoom, left, above] = given;
    clamp();
  }
  resized.observe(view);
  signal.addEventListener("abort", () => resized.disconnect());
  theme.onChange(again);
  listen();
  draw();

  function told() {
    return {
      sheet: place.sheet, head: place.head, item: place.item, reduce, scale: isLog ? "log" : "linear",
      zoom: Number(zoom.toPrecision(5)), x: Number(left.toFixed(2)), y: Number(above.toFixed(2)),
    };
  }

  function measure() {
    ({ clientWidth: width, clientHeight: height } = view);
    const ratio = devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    screen.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  function room() {
    return { x: Math.max(50, width - MARGIN.left - MARGIN.right), y: Math.max(50, height - MARGIN.top - MARGIN.bottom) };
  }

  function smallest() {
    const { x, y } = room();
    return Math.min(LARGEST, x / keys, y / queries);
  }

  function fit() {
    zoom = smallest();
    left = above = 0;
    clamp();
  }

  function clamp() {
    const { x, y } = room();
    zoom = Math.min(LARGEST, Math.max(smallest(), zoom));
    left = Math.min(Math.max(0, left), Math.max(0, keys - x / zoom));
    above = Math.min(Math.max(0, above), Math.max(0, queries - y / zoom));
  }

  function zoomAt(factor, x = width / 2, y = height / 2) {
    const before = weightAt(x, y);
    zoom = Math.min(LARGEST, Math.max(smallest(), zoom * factor));
    left = before.key - (x - MARGIN.left) / zoom;
    above = before.query - (y - MARGIN.top) / zoom;
    clamp();
    draw();
  }

  function weightAt(x, y) {
    return { key: left + (x - MARGIN.left) / zoom, query: above + (y - MARGIN.top) / zoom };
  }

  function again() {
    images.clear();
    draw();
  }

  function draw() {
    if (isDrawn || signal.aborted) return;
    isDrawn = true;
    requestAnimationFrame(() => {
      isDrawn = false;
      if (signal.aborted) return;
      paint(screen);
      page.keep(told());
    });
  }

  /** The tiles of a level that lie in view, nearest to the middle first. */
  function inView(level) {
    const size = about.side * 2 ** level;
    const { x, y } = room();
    const found = [];
    for (let row = Math.floor(above / size); row * size < Math.min(queries, above + y / zoom); row++)
      for (let column = Math.floor(left / size); column * size < Math.min(keys, left + x / zoom); column++)
        found.push({ level, row, column, size });
    const [middleKey, middleQuery] = [left + x / zoom / 2, above + y / zoom / 2];
    const far = (one) => Math.hypot((one.column + 0.5) * size - middleKey, (one.row + 0.5) * size - middleQuery);
    return found.sort((a, b) => far(a) - far(b));
  }

  function nameOf({ level, row, column }) {
    return `${reduce}/${level}/${row}/${column}`;
  }

  /** A tile, asked for where it is not here; first a quick one, then the exact one. */
  function tile(one, wanted = true) {
    const name = nameOf(one);
    const found = tiles.get(name);
    if (found !== undefined || !wanted) return found;
    const path = `tile/${place.sheet}/${place.item}/${place.head}/${one.level}/${one.row}/${one.column}?reduce=${reduce}`;
    const stop = new AbortController();
    const kept = { values: null, stop, isExact: false };
    tiles.set(name, kept);
    signal.addEventListener("abort", () => stop.abort(), { once: true });
    const got = ({ values, shape, isExact }) => {
      Object.assign(kept, { values, height: shape[0], width: shape[1], isExact });
      kept.most = values.reduce((most, value) => Math.max(most, value), 0);
      images.delete(name);
      draw();
    };
    source.numbers(`${path}&exact=0`, stop.signal)
      .then((first) => { got(first); return first.isExact ? null : source.numbers(path, stop.signal).then(got); })
      .catch((error) => { tiles.delete(name); if (error.name !== "AbortError") say(error.message); });
    if (tiles.size > KEPT) forget();
    return kept;
  }

  function forget() {
    for (const [name, one] of tiles) {
      if (tiles.size <= KEPT / 2) return;
      one.stop.abort();
      tiles.delete(name);
      images.delete(name);
    }
  }

  /** What nobody looks at any more need not be found. */
  function drop(names) {
    for (const [name, one] of tiles) if (!names.has(name) && !one.isExact) { one.stop.abort(); tiles.delete(name); }
  }

  function imageOf(name, one) {
    let image = images.get(name);
    if (image === undefined) {
      image = made("canvas", { width: one.width, height: one.height });
      image.getContext("2d").putImageData(picture(one.values, one.width, one.height, scaleTop, isLog, theme.table), 0, 0);
      images.set(name, image);
    }
    return image;
  }

  function paint(pen) {
    const level = Math.min(top, Math.max(0, Math.floor(-Math.log2(zoom) + 1e-9)));
    const wanted = inView(level);
    const whole = { level: top, row: 0, column: 0, size: about.side * 2 ** top };
    drop(new Set([...wanted, whole].map(nameOf)));
    wanted.forEach((one) => tile(one));
    tile(whole);
    const most = wanted.reduce((found, one) => Math.max(found, tile(one, false)?.most ?? 0), 0);
    const newTop = rounded(most || 1);
    if (newTop !== scaleTop) { scaleTop = newTop; images.clear(); }

    const [ink, faint, line, mark] = ["--ink", "--faint", "--line", "--mark"].map(theme.colour);
    const { x, y } = room();
    pen.clearRect(0, 0, width, height);
    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, MARGIN.top, Math.min(x, (keys - left) * zoom), Math.min(y, (queries - above) * zoom));
    pen.clip();
    pen.imageSmoothingEnabled = false;
    for (const one of wanted) put(pen, one, level);
    if (zoom >= NUMBERED) numbersInCells(pen);
    pen.restore();
    pen.strokeStyle = line;
    pen.strokeRect(MARGIN.left - 0.5, MARGIN.top - 0.5, Math.min(x, (keys - left) * zoom) + 1, Math.min(y, (queries - above) * zoom) + 1);
    labels(pen, ink, faint);
    if (cursor) {
      pen.strokeStyle = mark;
      pen.lineWidth = 2;
      const size = Math.max(zoom, 6);
      pen.strokeRect(MARGIN.left + (cursor.key + 0.5 - left) * zoom - size / 2, MARGIN.top + (cursor.query + 0.5 - above) * zoom - size / 2, size, size);
      pen.lineWidth = 1;
    }
    minimap(pen, whole, line, mark);
    legend(pen, ink, line);
    tell(level);
  }

  /** Draw a tile, or what a coarser one knows of its place until it is there. */
  function put(pen, one, level) {
    const at = (key, query) => [MARGIN.left + (key - left) * zoom, MARGIN.top + (query - above) * zoom];
    for (let up = level; up <= top; up++) {
      const shift = 2 ** (up - level);
      const other = { level: up, row: Math.floor(one.row / shift), column: Math.floor(one.column / shift) };
      const found = tile(other, false);
      if (!found?.values) continue;
      const cell = 2 ** up;
      const [x, y] = [one.column * one.size, one.row * one.size];
      const [fromX, fromY] = [(x - other.column * about.side * cell) / cell, (y - other.row * about.side * cell) / cell];
      const [spanX, spanY] = [Math.min(one.size / cell, found.width - fromX), Math.min(one.size / cell, found.height - fromY)];
      pen.drawImage(imageOf(nameOf(other), found), fromX, fromY, spanX, spanY, ...at(x, y), spanX * cell * zoom, spanY * cell * zoom);
      return;
    }
  }

  function value(query, key) {
    const one = { level: 0, row: Math.floor(query / about.side), column: Math.floor(key / about.side) };
    const found = tile(one, false);
    return found?.values ? found.values[(query - one.row * about.side) * found.width + key - one.column * about.side] : undefined;
  }

  function eachVisible(call) {
    const { x, y } = room();
    for (let query = Math.floor(above); query < Math.min(queries, above + y / zoom); query++)
      for (let key = Math.floor(left); key < Math.min(keys, left + x / zoom); key++) call(query, key);
  }

  function numbersInCells(pen) {
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    eachVisible((query, key) => {
      const found = value(query, key);
      if (found === undefined) return;
      pen.fillStyle = shade(share(found, scaleTop, isLog), theme.table).ink;
      pen.fillText(percent(found), MARGIN.left + (key + 0.5 - left) * zoom, MARGIN.top + (query + 0.5 - above) * zoom);
    });
  }

  function short(word, most = 12) {
    const letters = [...word.trim()];
    return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
  }

  function labels(pen, ink, faint) {
    const { x, y } = room();
    pen.font = `${zoom < 13 ? 10 : 12}px system-ui, sans-serif`;
    pen.fillStyle = zoom >= LABELLED ? ink : faint;
    pen.textBaseline = "middle";
    const step = zoom >= LABELLED ? 1 : 10 ** Math.ceil(Math.log10(70 / zoom));
    pen.textAlign = "right";
    for (let query = Math.ceil(above / step) * step; query < Math.min(queries, above + y / zoom); query += step)
      pen.fillText(step === 1 ? short(down[query]) : String(query), MARGIN.left - 6, MARGIN.top + (query + 0.5 - above) * zoom);
    pen.textAlign = "left";
    for (let key = Math.ceil(left / step) * step; key < Math.min(keys, left + x / zoom); key += step) {
      pen.save();
      pen.translate(MARGIN.left + (key + 0.5 - left) * zoom, MARGIN.top - 6);
      if (step === 1) pen.rotate(-Math.PI / 3);
      pen.fillText(step === 1 ? short(across[key], 10) : String(key), 0, 0);
      pen.restore();
    }
  }

  function minimap(pen, whole, line, mark) {
    const found = tile(whole, false);
    const { x, y } = room();
    if (!found?.values || (x / zoom >= keys && y / zoom >= queries)) return;
    const scale = MINIMAP / Math.max(queries, keys);
    const [right, bottom] = [width - MARGIN.right - keys * scale - 8, height - MARGIN.bottom - queries * scale - 8];
    pen.imageSmoothingEnabled = true;
    pen.drawImage(imageOf(nameOf(whole), found), right, bottom, keys * scale, queries * scale);
    pen.strokeStyle = line;
    pen.strokeRect(right, bottom, keys * scale, queries * scale);
    pen.strokeStyle = mark;
    pen.strokeRect(right + left * scale, bottom + above * scale, Math.max(3, Math.min(x / zoom, keys) * scale), Math.max(3, Math.min(y / zoom, queries) * scale));
  }

  function legend(pen, ink, line) {
    const [wide, x, y] = [72, 8, 22];
    for (let i = 0; i < wide; i++) {
      pen.fillStyle = shade(i / (wide - 1), theme.table).paper;
      pen.fillRect(x + i, y, 1, 8);
    }
    pen.strokeStyle = line;
    pen.strokeRect(x - 0.5, y - 0.5, wide + 1, 9);
    pen.fillStyle = ink;
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    pen.fillText(isLog ? `≤ ${percent(scaleTop / 1e4)}` : "0 %", x, y - 5);
    pen.textAlign = "right";
    pen.fillText(percent(scaleTop), x + wide, y + 20);
  }

  function tell(level) {
    const pending = inView(level).some((one) => !tile(one, false)?.isExact);
    const parts = [`${queries.toLocaleString()} × ${keys.toLocaleString()} weights`];
    if (level > 0) parts.push(`a cell is the ${reduce === "max" ? "largest" : "mean"} of ${2 ** level} × ${2 ** level}`);
    if (pending) parts.push("sampled, being made exact");
    if (cursor) {
      const found = level === 0 ? value(cursor.query, cursor.key) : undefined;
      parts.unshift(`“${short(down[cursor.query], 24)}” (${cursor.query}) attends to “${short(across[cursor.key], 24)}” (${cursor.key})${found === undefined ? "" : `: ${percent(found)}`}`);
    }
    say(parts.join(" · "));
  }

  function listen() {
    const options = { signal };
    const pointers = new Map();
    let pinch = 0;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoomAt(1.0015 ** -event.deltaY, event.offsetX, event.offsetY);
    }, { signal, passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    }, options);
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) {
        point(event);
        return;
      }
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (pointers.size === 2) {
        const [[ax, ay], [bx, by]] = pointers.values();
        const apart = Math.hypot(ax - bx, ay - by);
        if (pinch > 0) zoomAt(apart / pinch, (ax + bx) / 2, (ay + by) / 2);
        pinch = apart;
        return;
      }
      left -= (event.offsetX - before[0]) / zoom;
      above -= (event.offsetY - before[1]) / zoom;
      clamp();
      draw();
    }, options);
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => { pointers.delete(event.pointerId); pinch = 0; }, options);
    canvas.addEventListener("keydown", key, options);
  }

  function point(event) {
    const { key: k, query } = weightAt(event.offsetX, event.offsetY);
    const inside = k >= 0 && k < keys && query >= 0 && query < queries && event.offsetX > MARGIN.left && event.offsetY > MARGIN.top;
    cursor = inside ? { key: Math.floor(k), query: Math.floor(query) } : null;
    draw();
  }

  function key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { x, y } = room();
    if (way && event.shiftKey) {
      left += (way[0] * x) / zoom / 4;
      above += (way[1] * y) / zoom / 4;
    } else if (way) {
      cursor ??= { key: Math.floor(left), query: Math.floor(above) };
      const step = Math.max(1, Math.round(8 / zoom));
      cursor.key = Math.min(keys - 1, Math.max(0, cursor.key + way[0] * step));
      cursor.query = Math.min(queries - 1, Math.max(0, cursor.query + way[1] * step));
      left = Math.min(cursor.key, Math.max(left, cursor.key + 1 - x / zoom));
      above = Math.min(cursor.query, Math.max(above, cursor.query + 1 - y / zoom));
    } else if (event.key === "+" || event.key === "=" || event.key === "-") {
      const at = cursor ? [MARGIN.left + (cursor.key + 0.5 - left) * zoom, MARGIN.top + (cursor.query + 0.5 - above) * zoom] : [];
      zoomAt(event.key === "-" ? 1 / 1.6 : 1.6, ...at);
    } else if (event.key === "0") fit();
    else return;
    event.preventDefault();
    clamp();
    draw();
  }
}
