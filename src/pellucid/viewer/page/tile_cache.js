// The tiles of a map: visible ones are requested, first as drafts and then exactly, and cached.

const MOST_TILES = 240; // tiles
const AT_ONCE = 2; // exact ones that are waited for

/** The tiles of one head. */
export class TileCache {
  reduce = "max";
  #page;
  #place;
  #changed;
  /** @type {Map<string, any>} */
  #known = new Map();
  /** @type {Set<string>} */
  #wanted = new Set();

  /** @param {Page} page @param {HeadPlace} place @param {() => void} changed */
  constructor(page, place, changed) {
    const { queries, keys } = page.about.layers[place.layer];
    this.queries = queries;
    this.keys = keys;
    this.side = page.about.side;
    this.top = Math.max(0, Math.ceil(Math.log2(Math.max(queries, keys) / this.side)));
    this.#page = page;
    this.#place = Object.values(place).join("/");
    this.#changed = changed;
  }

  /** The path of a tile; single weights are not pooled. @param {Spot} spot */
  path({ level, row, column }) {
    return `tile/${this.#place}/${level}/${row}/${column}${level > 0 ? `?reduce=${this.reduce}` : ""}`;
  }

  /** Request some tiles, the most important first, and cancel all other requests. @param {Spot[]} spots */
  request(spots) {
    const before = this.#wanted;
    this.#wanted = new Set(spots.map((spot) => this.path(spot)));
    for (const path of before) if (!this.#wanted.has(path)) this.#leave(path);
    for (const spot of spots) {
      const path = this.path(spot);
      const tile = this.#known.get(path) ?? { values: null, isExact: false, waits: null, problem: null };
      this.#known.delete(path); // and put last: the first are forgotten first
      this.#known.set(path, tile);
      if (!tile.values && !tile.waits && !tile.problem) this.#ask(tile, `${path}${spot.level > 0 ? "&" : "?"}exact=0`);
    }
    for (const path of this.#known.keys()) {
      if (this.#known.size <= Math.max(MOST_TILES, this.#wanted.size)) break;
      this.#known.delete(path);
    }
    this.#refine();
  }

  /** A tile, perhaps as a draft, if it has arrived. @param {Spot} spot @returns {Tile | undefined} */
  find(spot) {
    const tile = this.#known.get(this.path(spot));
    return tile?.values ? tile : undefined;
  }

  /** Exact tiles, however long they take. @param {Spot[]} spots @returns {Promise<Tile[]>} */
  exact(spots) {
    return Promise.all(spots.map((spot) => {
      const found = this.find(spot);
      return found?.isExact ? found : this.#page.source.numbers(this.path(spot), this.#page.signal).then(read);
    }));
  }

  /** What went wrong with a tile that is in view. */
  get problem() {
    return this.#inView.find((tile) => tile.problem)?.problem.message;
  }

  /** Whether something in view is not exact yet. */
  get isPending() {
    return this.#inView.some((tile) => !tile.isExact && !tile.problem);
  }

  get #inView() {
    return [...this.#wanted].map((path) => this.#known.get(path));
  }

  /** Cancel a request. @param {string} path */
  #leave(path) {
    const tile = this.#known.get(path);
    if (!tile) return;
    tile.waits?.abort();
    tile.waits = tile.problem = null;
  }

  /** Drafts become exact, a few at a time: quick answers for other places need not wait for them. */
  #refine() {
    let free = AT_ONCE - this.#inView.filter((tile) => tile.waits && tile.values).length;
    for (const path of this.#wanted) {
      const tile = this.#known.get(path);
      if (free <= 0) return;
      if (!tile.values || tile.isExact || tile.isLast || tile.waits || tile.problem) continue;
      this.#ask(tile, path);
      free -= 1;
    }
  }

  /** @param {any} tile @param {string} path */
  async #ask(tile, path) {
    const { source, signal } = this.#page;
    const waits = new AbortController();
    tile.waits = waits;
    try {
      Object.assign(tile, read(await source.numbers(path, AbortSignal.any([signal, waits.signal]))));
      tile.isLast = !path.endsWith("exact=0"); // a file may know no better
    } catch (error) {
      if (waits.signal.aborted || signal.aborted) return;
      tile.problem = error;
    }
    if (tile.waits === waits) tile.waits = null;
    this.#refine();
    this.#changed();
  }
}

/** What one head gives more than another, tile by tile; both have as many queries and keys. */
export class DifferenceTiles {
  #both;
  /** @type {Map<string, any>} */
  #known = new Map();

  /** @param {TileCache} first @param {TileCache} second */
  constructor(first, second) {
    const { queries, keys, side, top } = first;
    this.queries = queries;
    this.keys = keys;
    this.side = side;
    this.top = top;
    this.#both = [first, second];
  }

  set reduce(value) { for (const one of this.#both) one.reduce = value; }
  get reduce() { return this.#both[0].reduce; }
  get problem() { return this.#both[0].problem ?? this.#both[1].problem; }
  get isPending() { return this.#both.some((one) => one.isPending); }

  request(spots) {
    for (const one of this.#both) one.request(spots);
  }

  find(spot) {
    const [first, second] = this.#both.map((one) => one.find(spot));
    if (!first || !second) return undefined;
    const name = `${spot.level}/${spot.row}/${spot.column}`;
    let found = this.#known.get(name);
    if (found?.first !== first.values || found.second !== second.values) {
      found = { ...less(first, second), first: first.values, second: second.values };
      this.#known.delete(name);
      this.#known.set(name, found);
      if (this.#known.size > MOST_TILES) this.#known.delete(String(this.#known.keys().next().value));
    }
    return found;
  }

  async exact(spots) {
    const [first, second] = await Promise.all(this.#both.map((one) => one.exact(spots)));
    return first.map((one, i) => less(one, second[i]));
  }
}

/** @param {Numbers} numbers @returns {Tile} */
function read({ values, shape: [height, width], isExact }) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return { values, height, width, isExact, most, image: null, shades: null };
}

/** @param {Tile} first @param {Tile} second */
function less(first, second) {
  const { height, width } = first;
  const values = first.values.map((value, i) => value - second.values[i]);
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return { values, height, width, isExact: first.isExact && second.isExact, most, image: null, shades: null };
}

/** The tiles that hold a rectangle of tokens, the nearest to its middle first. @param {Record<Side, Span>} span @param {number} level @param {number} side @returns {Spot[]} */
export function spotsOf({ queries, keys }, level, side) {
  const size = side * 2 ** level;
  /** @type {Spot[]} */
  const spots = [];
  for (let row = Math.floor(queries[0] / size); row * size < queries[1]; row++)
    for (let column = Math.floor(keys[0] / size); column * size < keys[1]; column++) spots.push({ level, row, column });
  const middle = { row: (queries[0] + queries[1]) / size / 2 - 0.5, column: (keys[0] + keys[1]) / size / 2 - 0.5 };
  const far = (spot) => Math.hypot(spot.row - middle.row, spot.column - middle.column);
  return spots.sort((a, b) => far(a) - far(b));
}

/** The largest that is known of some tiles, whatever its sign; 0 where nothing is. @param {TileSource} tiles @param {Spot[]} spots */
export function mostOf(tiles, spots) {
  return spots.reduce((most, spot) => Math.max(most, tiles.find(spot)?.most ?? 0), 0);
}

/** The number of the cell that contains a weight; undefined until it is loaded. @param {TileSource} tiles @param {number} level @param {TokenCell} cell */
export function cellOf(tiles, level, { query, key }) {
  if (query >= tiles.queries || key >= tiles.keys) return undefined;
  const [down, across] = [query >> level, key >> level];
  const spot = { level, row: Math.floor(down / tiles.side), column: Math.floor(across / tiles.side) };
  const tile = tiles.find(spot);
  return tile?.values[(down - spot.row * tiles.side) * tile.width + across - spot.column * tiles.side];
}
