// The attention of the token that predicts each new one: of one head, or the mean of several.

const MOST_WEIGHTS = 2 ** 18; // of one answer
const MOST_ROWS = 256; // queries of one answer
const MOST_ANSWERS = 256; // that are kept

/** @typedef {Layer & {index: number}} IndexedLayer */

export class StepAttention {
  #source;
  #signal;
  #item;
  #first; // the query that predicts the first new token
  /** @type {Map<string, Promise<Numbers>>} */
  #answers = new Map();

  /** @param {Page} page @param {number} item @param {number} first */
  constructor({ source, signal }, item, first) {
    this.#source = source;
    this.#signal = signal;
    this.#item = item;
    this.#first = first;
  }

  /**
   * The weights of one query, (keys,).
   * @param {IndexedLayer[]} layers whose mean is taken
   * @param {number | "mean"} head
   * @param {number} query
   */
  async weights(layers, head, query) {
    const rows = await Promise.all(layers.map((layer) => this.#row(layer, head, query)));
    if (rows.length === 1) return rows[0];
    return rows[0].map((_, key) => rows.reduce((sum, row) => sum + row[key], 0) / rows.length);
  }

  /** @param {IndexedLayer} layer @param {number | "mean"} head @param {number} query */
  async #row({ index, keys }, head, query) {
    const count = Math.max(1, Math.min(MOST_ROWS, Math.floor(MOST_WEIGHTS / keys)));
    const start = this.#first + Math.floor((query - this.#first) / count) * count;
    const name = head === "mean" ? `mean/${index}/${this.#item}` : `weights/${index}/${this.#item}/${head}`;
    const { values } = await this.#answer(`${name}/${start}/0?queries=${count}&keys=${keys}`);
    return values.subarray((query - start) * keys, (query - start + 1) * keys);
  }

  /** @param {string} path */
  #answer(path) {
    const known = this.#answers.get(path);
    if (known) return known;
    if (this.#answers.size > MOST_ANSWERS) this.#answers.clear();
    const answer = this.#source.numbers(path, this.#signal);
    answer.catch(() => this.#answers.delete(path));
    this.#answers.set(path, answer);
    return answer;
  }
}
