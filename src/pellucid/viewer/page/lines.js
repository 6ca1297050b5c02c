// The weights between the tokens of two sides, as lines: those strong enough of the heads that are on, and shares.
// Numbers alone: it knows nothing of pages.

const MOST = 20_000; // lines drawn at once
const FEW = 36; // lines that can be told apart, up to which the strongest are drawn at first
const LEAST = 10; // where the slider stands if there are no more, and for the lines of one word: 1 %

/** The least weight at a place of the slider, from 0 to 100: half percents, and less below 1 %. @param {number} place */
function limitAt(place) {
  const square = (place / 100) ** 2;
  return square < 0.01 ? square : Math.round(square * 200) / 200;
}

/** @typedef {{side: "queries" | "keys", at: number}} Word a token of one side, by its position in the text */

export class Lines {
  #found;
  #now;
  #usual;

  /**
   * @param {import("./links.js").ShownWeights} found
   * @param {{least: number | null, off: Set<number>}} now a place of the slider, or null for what is usual; heads that are off
   */
  constructor(found, now) {
    this.#found = found;
    this.#now = now;
    const weights = found.planes.flatMap((plane) => [...plane].filter((value) => value >= limitAt(LEAST)));
    const last = weights.length > FEW ? weights.sort((a, b) => b - a)[FEW - 1] : 0;
    this.#usual = LEAST;
    while (this.#usual < 100 && limitAt(this.#usual) < last) this.#usual += 1;
  }

  get isMany() { return this.#found.heads.length > 1; }
  /** A place of the slider; until one is chosen, a word alone has all its lines. @param {Word | null} word */
  placeOf(word) {
    return this.#now.least ?? (word ? LEAST : this.#usual);
  }

  /** The least weight of a line. @param {Word | null} word */
  limitOf(word) {
    return limitAt(this.placeOf(word));
  }

  /** Which planes are of heads that are on. */
  get on() {
    const { planes, heads } = this.#found;
    return [...planes.keys()].filter((i) => !this.isMany || !this.#now.off.has(heads[i]));
  }

  /** Where the weights of a word stand in each plane, or all: the first, how far it is to the next, and how many. @param {Word | null} word */
  #cells(word) {
    const { queries, keys } = this.#found;
    if (!word) return { first: 0, step: 1, count: queries.count * keys.count };
    const own = word.at - this.#found[word.side].first;
    if (word.side === "queries") return { first: own * keys.count, step: 1, count: keys.count };
    return { first: own, step: keys.count, count: queries.count };
  }

  /** The lines of a word, or all: the strongest, which come last, and of how many. @param {Word | null} word */
  drawn(word) {
    const { planes, keys } = this.#found;
    const { first, step, count } = this.#cells(word);
    const limit = this.limitOf(word);
    const found = [];
    for (const i of this.on)
      for (let n = 0, cell = first; n < count; n++, cell += step) {
        const value = planes[i][cell];
        if (value > 0 && value >= limit) found.push({ i, query: Math.floor(cell / keys.count), key: cell % keys.count, value });
      }
    found.sort((a, b) => a.value - b.value);
    return { lines: found.slice(-MOST), count: found.length };
  }

  /** A word's weights with each token of the other side: in each of these, those of all heads that are on. @param {Word} word */
  weights(word) {
    const { first, step, count } = this.#cells(word);
    const { on } = this;
    return Array.from({ length: count }, (_, n) => on.map((i) => ({ i, value: this.#found.planes[i][first + n * step] })));
  }

  /** The shares of a word's attention, or of what it gets, each the mean over the heads that are on. @param {Word} word */
  shares(word) {
    return this.weights(word).map((some) => some.reduce((sum, { value }) => sum + value, 0) / (some.length || 1));
  }
}
