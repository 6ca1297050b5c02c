// Which part of a map is seen, and how large. Maps that share one move together. d3-zoom has one scale
// for both axes and no cells; the cells of a short text are wider than high.

const LARGEST = 96; // pixels of a weight from top to bottom
const FEW = 64; // tokens up to which cells may be wider than high
const WIDEST = 2; // times

export class Camera {
  left = 0; // the key and the query in the corner
  above = 0;
  high = 1; // pixels of a weight
  #stretch = 1;
  #room = { x: 1, y: 1 };
  #isWhole = true; // all of it is shown, however large the window becomes

  /** @param {number} queries @param {number} keys */
  constructor(queries, keys) {
    this.queries = queries;
    this.keys = keys;
  }

  get wide() { return this.high * this.#stretch; }

  /** Pixels that are drawn on. */
  get drawn() {
    const { x, y } = this.#room;
    return { x: Math.min(x, (this.keys - this.left) * this.wide), y: Math.min(y, (this.queries - this.above) * this.high) };
  }

  /** The whole keys and queries that are in view, first and behind the last. */
  get span() {
    const { x, y } = this.drawn;
    return /** @type {Record<Side, Span>} */ ({
      keys: [Math.floor(this.left), Math.min(this.keys, Math.ceil(this.left + x / this.wide - 1e-6))],
      queries: [Math.floor(this.above), Math.min(this.queries, Math.ceil(this.above + y / this.high - 1e-6))],
    });
  }

  /** The left edge of a key, in pixels. @param {number} key */
  x(key) { return (key - this.left) * this.wide; }
  /** The upper edge of a query, in pixels. @param {number} query */
  y(query) { return (query - this.above) * this.high; }

  /** The position at a pixel, with fractions. @param {number} x @param {number} y */
  at(x, y) { return { key: this.left + x / this.wide, query: this.above + y / this.high }; }

  /** The weight at a pixel; null outside. @param {number} x @param {number} y @returns {TokenCell | null} */
  cell(x, y) {
    const { x: wide, y: high } = this.drawn;
    if (!(x >= 0 && y >= 0 && x < wide && y < high)) return null;
    const { key, query } = this.at(x, y);
    return { key: Math.floor(key), query: Math.floor(query) };
  }

  /** The finest level with cells no smaller than a pixel. @param {number} top @param {number} ratio pixels of the screen per pixel */
  level(top, ratio) {
    return Math.min(top, Math.max(0, Math.ceil(-Math.log2(this.high * ratio) - 1e-6)));
  }

  /** @param {number} x @param {number} y pixels of the window */
  resize(x, y) {
    this.#room = { x, y };
    const isFew = Math.max(this.queries, this.keys) <= FEW;
    this.#stretch = isFew ? between(1, (x / this.keys) / (y / this.queries), WIDEST) : 1;
    if (this.#isWhole) this.fit();
    else this.#settle();
  }

  fit() {
    this.#isWhole = true;
    this.high = this.#smallest;
    this.left = this.above = 0;
  }

  /** @param {number} factor */
  zoom(factor, x = this.#room.x / 2, y = this.#room.y / 2) {
    const { key, query } = this.at(x, y);
    this.high = between(this.#smallest, this.high * factor, LARGEST);
    this.#isWhole = this.high === this.#smallest;
    this.left = key - x / this.wide;
    this.above = query - y / this.high;
    this.#settle();
  }

  /** Move by pixels. @param {number} x @param {number} y */
  move(x, y) {
    this.left += x / this.wide;
    this.above += y / this.high;
    this.#settle();
  }

  /** Move by shares of the window. @param {number} x @param {number} y */
  pan(x, y) {
    this.move(x * this.#room.x, y * this.#room.y);
  }

  /** @param {TokenCell} cell */
  centre({ key, query }) {
    this.left = key - this.#room.x / this.wide / 2;
    this.above = query - this.#room.y / this.high / 2;
    this.#settle();
  }

  /** Move as little as possible to show a weight. @param {TokenCell} cell */
  reveal({ key, query }) {
    const { x, y } = this.#room;
    this.left = Math.min(key, Math.max(this.left, key + 1 - x / this.wide));
    this.above = Math.min(query, Math.max(this.above, query + 1 - y / this.high));
    this.#settle();
  }

  /** The URL parameters: none while all is shown. @returns {UrlState} */
  state() {
    if (this.#isWhole) return {};
    return { zoom: Number(this.high.toPrecision(5)), x: Number(this.left.toFixed(2)), y: Number(this.above.toFixed(2)) };
  }

  /** Restore the state of a URL. @param {URLSearchParams} params */
  read(params) {
    const given = ["zoom", "x", "y"].map((name) => Number(params.get(name)));
    if (!given.every(Number.isFinite) || !(given[0] > 0)) return;
    [this.high, this.left, this.above] = given;
    this.#isWhole = false;
  }

  get #smallest() {
    const { x, y } = this.#room;
    return Math.min(LARGEST, x / this.keys / this.#stretch, y / this.queries);
  }

  #settle() {
    const { x, y } = this.#room;
    this.high = between(this.#smallest, this.high, LARGEST);
    this.left = between(0, this.left, Math.max(0, this.keys - x / this.wide));
    this.above = between(0, this.above, Math.max(0, this.queries - y / this.high));
  }
}

/** @param {number} least @param {number} value @param {number} most */
export function between(least, value, most) {
  return Math.min(most, Math.max(least, value));
}
