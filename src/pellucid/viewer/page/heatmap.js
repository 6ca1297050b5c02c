// A heatmap of weights, drawn from tiles: cells, tokens along both sides, a minimap and a legend.
import { between } from "./camera.js";
import { least, paintCells, percentOrDash, rounded, roundPercent, shade, shadesOf, share, signedPercent, signedRamp, signedShare } from "./colours.js";
import { context2d, createElement, truncate } from "./elements.js";
import { cellOf, mostOf, spotsOf } from "./tile_cache.js";

const FONT = "system-ui, sans-serif";
const LABELLED = 8; // pixels of a weight from which all tokens are written
const APART = 20; // pixels between the others
const FLAT = 84; // pixels in which every word has room
const SLANT = -Math.PI / 3;
const LINED = 16; // pixels of a weight from which there are lines between cells
const MINI = 120;
const LEGEND = 80;
const CALM = 160; // milliseconds without moving after which colours follow what is in view
const AT_ONCE = 12; // tiles that are painted in one frame
const ruler = context2d(document.createElement("canvas"));

export class Heatmap {
  /** @type {TokenCell | null} */
  cursor = null; // the weight that is pointed at
  /** @type {TokenCell | null} */
  pinned = null; // the weight whose row and column are shown: see profiles.js
  /** @type {import("./profiles.js").Profiles | null} */
  profiles = null;
  width = 0; // pixels of the canvas
  height = 0;
  margin = { left: 0, top: 0, right: 0, bottom: 0 };
  strip = { high: 0, wide: 0 };
  /** @type {Record<string, string>} */
  colours = {};
  isLog = false;
  /** @type {Uint32Array} */
  table = new Uint32Array(0); // colours
  level = 0;
  #page;
  #painted;
  #most;
  #isSigned;
  #isAsked = false;
  #ratio = 1;
  /** @type {{x: number, y: number, wide: number, high: number, scale: number} | null} */
  #mini = null;
  /** @type {number | null} */
  #letters = null; // pixels of the longest word above
  /** @type {any} */
  #scale = { top: 0 };
  #top = 0; // where the colours end
  #corner = ""; // what was in view when it was drawn last
  #waits = 0;
  #left = 0; // tiles that may still be painted in this frame

  /**
   * @param {Page} page
   * @param {object} shown
   * @param {TileSource} shown.tiles
   * @param {import("./camera.js").Camera} shown.camera
   * @param {TokenSides} shown.words
   * @param {string} shown.name what screen readers say
   * @param {() => void} [shown.painted] is called after each drawing
   * @param {(spots: Spot[]) => number} [shown.most] the largest number of some tiles
   * @param {boolean} [shown.isSigned] of a difference
   */
  constructor(page, { tiles, camera, words, name, painted = () => {}, most = (spots) => mostOf(tiles, spots), isSigned = false }) {
    this.tiles = tiles;
    this.camera = camera;
    this.words = words;
    this.#page = page;
    this.#painted = painted;
    this.#most = most;
    this.#isSigned = isSigned;
    this.format = isSigned ? signedPercent : percentOrDash; // a number as it is written
    this.canvas = createElement("canvas", { className: "map", tabIndex: 0, data: { role: "application", "aria-label": name } });
    this.canvas.paint = (pen) => this.#paint(pen, Infinity);
    this.element = createElement("div", { className: "mapbox" }, this.canvas);
    const resized = new ResizeObserver(() => { this.layOut(); this.#frame(); });
    resized.observe(this.element);
    page.signal.addEventListener("abort", () => resized.disconnect());
    page.theme.onChange(() => { this.#dress(); this.draw(); });
    this.#dress();
  }

  /** Draw in the next frame. */
  draw() {
    if (this.#isAsked) return;
    this.#isAsked = true;
    requestAnimationFrame(() => { this.#isAsked = false; this.#frame(); });
  }

  /** Lay out all parts, after the window, the tokens or the profiles have changed. */
  layOut() {
    const { clientWidth: width, clientHeight: height } = this.element;
    this.#ratio = devicePixelRatio || 1;
    this.width = width;
    this.height = height;
    Object.assign(this.canvas, { width: Math.round(width * this.#ratio), height: Math.round(height * this.#ratio) });
    const strip = this.profiles ? Math.round(between(40, Math.min(height, width) * 0.14, 96)) : 0;
    this.margin = { left: width < 600 ? 96 : 104, top: height < 400 ? 62 : 76, right: 40 + (strip && strip + 12), bottom: 10 + (strip && strip + 12) };
    const room = { x: Math.max(60, width - this.margin.left - this.margin.right), y: Math.max(60, height - this.margin.top - this.margin.bottom) };
    this.camera.resize(room.x, room.y);
    this.strip = { high: strip, wide: between(strip, strip + room.x - this.drawn.x, 2.5 * strip) };
    this.#letters = null;
  }

  /** The weight under a pixel of the canvas, or none. */
  cellAt(x, y) {
    const cell = this.#onMini(x, y) ? null : this.camera.cell(x - this.margin.left, y - this.margin.top);
    return cell && cell.key < this.tiles.keys && cell.query < this.tiles.queries ? cell : null;
  }

  /** The weight that a pixel of the small map stands for, or none. */
  miniAt(x, y) {
    const mini = this.#mini;
    if (!mini || !this.#onMini(x, y)) return null;
    return { key: (x - mini.x) / mini.scale, query: (y - mini.y) / mini.scale };
  }

  /** The visible part of the map, which may be smaller than what the camera shows. */
  /** @returns {Record<Side, Span>} */
  get span() {
    const { queries, keys } = this.camera.span;
    return { queries: [queries[0], Math.min(queries[1], this.tiles.queries)], keys: [keys[0], Math.min(keys[1], this.tiles.keys)] };
  }

  /** Pixels of it. */
  get drawn() {
    const { x, y } = this.camera.drawn;
    return { x: between(0, this.camera.x(this.tiles.keys), x), y: between(0, this.camera.y(this.tiles.queries), y) };
  }

  /** Visible tiles, the nearest to the middle first. */
  get spots() {
    return spotsOf(this.span, this.level, this.tiles.side);
  }

  /** The tile that shows everything. @returns {Spot} */
  get whole() {
    return { level: this.tiles.top, row: 0, column: 0 };
  }

  #frame() {
    if (this.#page.signal.aborted || !this.width) return;
    this.level = this.camera.level(this.tiles.top, this.#ratio);
    this.tiles.request(this.level === this.tiles.top ? this.spots : [...this.spots, this.whole]);
    this.#follow();
    const pen = context2d(this.canvas);
    pen.setTransform(this.#ratio, 0, 0, this.#ratio, 0, 0);
    this.#paint(pen, AT_ONCE);
    this.#painted();
  }

  #dress() {
    const { theme } = this.#page;
    this.colours = Object.fromEntries(["paper", "panel", "ink", "faint", "line", "accent", "mark"].map((name) => [name, theme.colour(`--${name}`)]));
    this.table = this.#isSigned ? signedRamp(theme.isDark) : theme.table;
  }

  /** Scale the colours to the largest visible weight, but not while the map moves: they would flicker. */
  #follow() {
    const corner = JSON.stringify(this.span);
    const isCalm = corner === this.#corner;
    this.#corner = corner;
    const most = this.#most(this.spots);
    const top = rounded(most);
    if (most === 0 || top === this.#top) return;
    clearTimeout(this.#waits);
    if (isCalm || this.#top === 0) this.#top = top;
    else this.#waits = setTimeout(() => this.draw(), CALM);
  }

  /** The colours of numbers; new ones only where something has changed. */
  #rescale() {
    const top = this.#top || 1;
    const { isLog, table } = this;
    if (this.#scale.top === top && this.#scale.isLog === isLog && this.#scale.table === table) return;
    const shareOf = this.#isSigned ? signedShare : share;
    const part = (value) => shareOf(value, top, isLog);
    const legend = createElement("canvas", { width: LEGEND, height: 1 });
    const pen = context2d(legend);
    const line = pen.createImageData(LEGEND, 1);
    new Uint32Array(line.data.buffer).forEach((_, i, pixels) => { pixels[i] = table[Math.round((i / (LEGEND - 1)) * (table.length - 1))]; });
    pen.putImageData(line, 0, 0);
    this.#scale = { top, isLog, table, part, legend, shades: shadesOf(part, table) };
  }

  #paint(pen, most) {
    this.#rescale();
    this.#left = most;
    const { camera, colours, margin } = this;
    const { x, y } = this.drawn;
    pen.clearRect(0, 0, this.width, this.height);
    pen.save();
    pen.translate(margin.left, margin.top);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, x, y);
    pen.clip();
    for (const spot of this.spots) this.#put(pen, spot);
    if (camera.high >= LINED) this.#lines(pen);
    this.#numbers(pen);
    pen.restore();
    pen.lineWidth = 1;
    pen.strokeStyle = colours.line;
    pen.strokeRect(-0.5, -0.5, x + 1, y + 1);
    this.#down(pen);
    this.#across(pen);
    pen.font = `italic 12px ${FONT}`;
    pen.fillStyle = colours.faint;
    pen.textAlign = "right";
    pen.textBaseline = "alphabetic";
    pen.fillText("key →", -6, -20);
    pen.fillText("query ↓", -6, -7);
    this.profiles?.paint(pen, this);
    this.#marks(pen);
    pen.restore();
    this.#minimap(pen);
    this.#legend(pen);
  }

  /** A tile, or until it is there what is known of its place: of coarser tiles, and of finer ones. */
  #put(pen, spot) {
    const found = this.tiles.find(spot);
    if (found) {
      this.#lay(pen, spot, found, spot);
      return;
    }
    for (let level = spot.level + 1; level <= this.tiles.top; level++) {
      const shift = 2 ** (level - spot.level);
      const other = { level, row: Math.floor(spot.row / shift), column: Math.floor(spot.column / shift) };
      const coarser = this.tiles.find(other);
      if (!coarser) continue;
      this.#lay(pen, other, coarser, spot);
      break;
    }
    this.#finer(pen, spot, 2);
  }

  #finer(pen, spot, deep) {
    if (deep === 0 || spot.level === 0) return;
    for (const [row, column] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      const other = { level: spot.level - 1, row: spot.row * 2 + row, column: spot.column * 2 + column };
      const finer = this.tiles.find(other);
      if (finer) this.#lay(pen, other, finer, other);
      else this.#finer(pen, other, deep - 1);
    }
  }

  /** That part of a tile which shows the place of a tile; edges lie on pixels, so that none shine through. */
  #lay(pen, spot, tile, place) {
    const { camera, tiles: { side } } = this;
    const cell = 2 ** spot.level;
    const size = side * 2 ** place.level;
    const fromX = (place.column * size) / cell - spot.column * side;
    const fromY = (place.row * size) / cell - spot.row * side;
    const wide = Math.min(size / cell, tile.width - fromX);
    const high = Math.min(size / cell, tile.height - fromY);
    if (wide <= 0 || high <= 0) return;
    const snap = (at) => Math.round(at * this.#ratio) / this.#ratio;
    const [left, right] = [place.column * size, place.column * size + wide * cell].map((key) => snap(camera.x(key)));
    const [above, below] = [place.row * size, place.row * size + high * cell].map((query) => snap(camera.y(query)));
    pen.imageSmoothingEnabled = camera.high * cell * this.#ratio < 0.99;
    pen.drawImage(this.#image(tile), fromX, fromY, wide, high, left, above, right - left, below - above);
  }

  /** A tile as a picture. After a change of colours, only some are repainted in each frame. */
  #image(tile) {
    const { shades } = this.#scale;
    if (tile.shades === shades) return tile.image;
    if (tile.image && this.#left <= 0) {
      this.draw();
      return tile.image;
    }
    tile.image ??= createElement("canvas", { width: tile.width, height: tile.height });
    paintCells(tile.image, tile.values, shades);
    tile.shades = shades;
    this.#left -= 1;
    return tile.image;
  }

  #lines(pen) {
    const { camera } = this;
    const { x, y } = this.drawn;
    const { queries, keys } = this.span;
    pen.beginPath();
    for (let key = keys[0] + 1; key < keys[1]; key++) {
      pen.moveTo(camera.x(key), 0);
      pen.lineTo(camera.x(key), y);
    }
    for (let query = queries[0] + 1; query < queries[1]; query++) {
      pen.moveTo(0, camera.y(query));
      pen.lineTo(x, camera.y(query));
    }
    pen.lineWidth = 1;
    pen.strokeStyle = this.colours.paper;
    pen.stroke();
  }

  /** Percentages in their cells, where they fit. */
  #numbers(pen) {
    const { camera, tiles } = this;
    const { wide, high } = camera;
    if (this.level > 0 || wide < 34 || high < 14) return;
    const size = between(9.5, Math.min(wide / 5.4, high / 1.9), 16);
    const { queries, keys } = this.span;
    pen.font = `${size}px ${FONT}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const fits = (/** @type {number} */ letters) => letters * size * 0.54 <= wide - 2;
    const isWhole = fits("0.0012 %".length); // the sign stands behind all numbers, or behind none
    for (let query = queries[0]; query < queries[1]; query++)
      for (let key = keys[0]; key < keys[1]; key++) {
        const value = cellOf(tiles, 0, { query, key });
        if (!value) continue; // what is hidden stays empty
        const full = this.format(value);
        const short = full.replace(" %", "");
        const text = [isWhole ? full : short, Math.abs(value) < 1e-3 ? "<0.1" : short].find((one) => fits(one.length));
        if (text === undefined) continue;
        pen.fillStyle = shade(this.#scale.part(value), this.table).ink;
        pen.fillText(text, camera.x(key) + wide / 2, camera.y(query) + high / 2);
      }
  }

  /** Positions that are written, of those in view. */
  #steps(/** @type {Span} */ [first, end], /** @type {number} */ size) {
    const step = size >= LABELLED ? 1 : rounded(APART / size);
    const found = [];
    for (let at = Math.ceil(first / step) * step; at < end; at += step) found.push(at);
    return { step, found };
  }

  #down(pen) {
    const { camera, colours, words: { queries } } = this;
    const { step, found } = this.#steps(this.span.queries, camera.high);
    pen.font = `${step === 1 ? sized(camera.high) : 12}px ${FONT}`;
    pen.fillStyle = colours.ink;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const query of found) {
      const word = queries ? truncate(queries[query], step > 1 ? 7 : 12) : "";
      const y = camera.y(query) + camera.high / 2;
      if (y >= 0 && y <= this.drawn.y) pen.fillText(step > 1 || !word ? `${word} ${query}` : word, -6, y);
    }
  }

  #across(pen) {
    const { camera, colours, words: { keys } } = this;
    const { step, found } = this.#steps(this.span.keys, camera.wide);
    pen.font = `${step === 1 ? sized(camera.wide) : 12}px ${FONT}`;
    pen.fillStyle = colours.ink;
    pen.textBaseline = "middle";
    const isFlat = this.#isFlat(step);
    pen.textAlign = isFlat ? "center" : "left";
    for (const key of found) {
      const word = keys ? truncate(keys[key], step > 1 ? 5 : 11) : "";
      const x = camera.x(key) + camera.wide / 2;
      if (x < 0 || x > this.drawn.x) continue;
      pen.save();
      pen.translate(x, isFlat ? -12 : -6);
      if (!isFlat) pen.rotate(SLANT);
      pen.fillText(step > 1 || !word ? `${key} ${word}` : word, 0, 0);
      pen.restore();
    }
  }

  /** Whether the words above have room beside each other. */
  #isFlat(step) {
    const { camera: { wide }, words: { keys } } = this;
    if (step > 1 || wide < LINED || !keys) return false;
    if (wide >= FLAT) return true;
    if (keys.length > this.tiles.side) return false;
    ruler.font = `12px ${FONT}`;
    this.#letters ??= Math.max(...keys.map((word) => ruler.measureText(truncate(word, 11)).width));
    return this.#letters <= wide - 6;
  }

  /** What is pointed at and what is pinned: a frame, and the words on both sides. */
  #marks(pen) {
    const { camera, colours, cursor, pinned, words } = this;
    const { x, y } = this.drawn;
    pen.strokeStyle = colours.mark;
    if (pinned) {
      pen.save();
      pen.beginPath();
      pen.rect(-1, -1, x + 2, y + 2);
      pen.clip();
      pen.lineWidth = 1;
      this.#band(pen, -2, camera.y(pinned.query), x + 4, camera.high);
      this.#band(pen, camera.x(pinned.key), -2, camera.wide, y + 4);
      pen.restore();
    }
    if (!cursor || cursor.key >= this.tiles.keys || cursor.query >= this.tiles.queries) return;
    const cell = 2 ** this.level;
    const [key, query] = [cursor.key - (cursor.key % cell), cursor.query - (cursor.query % cell)];
    const size = { x: Math.max(cell * camera.wide, 6), y: Math.max(cell * camera.high, 6) };
    const middle = { x: camera.x(key) + (cell * camera.wide) / 2, y: camera.y(query) + (cell * camera.high) / 2 };
    if (middle.x < 0 || middle.y < 0 || middle.x > x || middle.y > y) return;
    pen.lineWidth = 2;
    pen.strokeRect(middle.x - size.x / 2, middle.y - size.y / 2, size.x, size.y);
    pen.lineWidth = 1;
    const isFlat = this.#isFlat(camera.wide >= LABELLED ? 1 : 2);
    const isFew = camera.high >= LABELLED;
    const label = (some, at, isFirst) => {
      const word = some ? truncate(some[at], isFew ? 12 : 7) : "";
      if (isFew && word) return word;
      return isFirst ? `${at} ${word}` : `${word} ${at}`;
    };
    this.#tag(pen, label(words.queries, cursor.query, false), -6, middle.y, 0, "right");
    this.#tag(pen, label(words.keys, cursor.key, true), middle.x, isFlat ? -12 : -6, isFlat ? 0 : SLANT, isFlat ? "center" : "left");
  }

  /** A frame around a row or a column; a line where that is thin. */
  #band(pen, x, y, wide, high) {
    if (Math.min(wide, high) >= 4) {
      pen.strokeRect(x, y, wide, high);
      return;
    }
    pen.fillStyle = this.colours.mark;
    pen.fillRect(x, y, Math.max(wide, 1), Math.max(high, 1));
  }

  #tag(pen, text, x, y, angle, align) {
    ruler.font = pen.font = `bold 12px ${FONT}`;
    const wide = ruler.measureText(text).width + 8;
    pen.save();
    pen.translate(x, y);
    if (angle) pen.rotate(angle);
    pen.fillStyle = this.colours.paper;
    pen.fillRect({ right: 4 - wide, left: -4, center: -wide / 2 }[align], -7, wide, 14);
    pen.fillStyle = this.colours.mark;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.fillText(text, 0, 0);
    pen.restore();
  }

  #minimap(pen) {
    const { camera, tiles, margin, colours } = this;
    const whole = tiles.find(this.whole);
    const { x, y } = this.drawn;
    this.#mini = null;
    if (!whole || (x >= tiles.keys * camera.wide - 1 && y >= tiles.queries * camera.high - 1)) return;
    const scale = Math.min(MINI, x / 3, y / 2.2) / Math.max(tiles.queries, tiles.keys);
    const [wide, high] = [tiles.keys * scale, tiles.queries * scale];
    this.#mini = { x: margin.left + x - wide - 6, y: margin.top + y - high - 6, wide, high, scale };
    pen.save();
    pen.translate(this.#mini.x, this.#mini.y);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(this.#image(whole), 0, 0, whole.width, whole.height, 0, 0, wide, high);
    pen.lineWidth = 1;
    pen.strokeStyle = colours.faint;
    pen.strokeRect(-0.5, -0.5, wide + 1, high + 1);
    pen.strokeStyle = colours.mark;
    pen.lineWidth = 2;
    const [seenX, seenY] = [(x / camera.wide) * scale, (y / camera.high) * scale];
    pen.strokeRect(between(0, camera.left * scale, wide - 4), between(0, camera.above * scale, high - 4), Math.max(4, seenX), Math.max(4, seenY));
    pen.restore();
  }

  #onMini(x, y) {
    const mini = this.#mini;
    return mini !== null && x >= mini.x && y >= mini.y && x <= mini.x + mini.wide && y <= mini.y + mini.high;
  }

  #legend(pen) {
    const { top, legend, isLog } = this.#scale;
    // Where words leave little room above the map, both ends of the scale are written above it.
    const isTight = this.margin.top < 72 && !this.#isSigned;
    const [x, y, high] = [8, isTight ? 14 : 20, 9];
    pen.imageSmoothingEnabled = true;
    pen.drawImage(legend, 0, 0, LEGEND, 1, x, y, LEGEND, high);
    pen.strokeStyle = this.colours.line;
    pen.lineWidth = 1;
    pen.strokeRect(x - 0.5, y - 0.5, LEGEND + 1, high + 1);
    pen.fillStyle = this.colours.ink;
    pen.textBaseline = "alphabetic";
    const write = (text, align, at, below) => {
      pen.textAlign = align;
      pen.fillText(text, at, below ? y + high + 12 : y - (isTight ? 3 : 5));
    };
    pen.font = `${this.#isSigned ? 10 : 11}px ${FONT}`;
    if (this.#isSigned) {
      write(`−${roundPercent(top)}`, "left", x - 4, true);
      write("0", "center", x + LEGEND / 2, false);
    } else write(isLog ? `≤ ${roundPercent(least(top))}` : "0 %", "left", x, false);
    write(`${this.#isSigned ? "+" : ""}${roundPercent(top)}`, "right", x + LEGEND + (this.#isSigned ? 4 : 0), !isTight);
  }
}

/** The size of letters that have so many pixels. */
function sized(pixels) {
  return pixels >= 13 ? 12 : pixels >= 10 ? 10 : 9;
}
