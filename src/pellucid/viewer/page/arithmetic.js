// The arithmetic of one query, in float64, a function a step: embed, project, score, scale, mask, softmax, mix.
// It knows nothing of pages: numbers in, numbers out. A matrix is a list of rows.

/** @typedef {number[]} Vector */

const product = (a, b) => a.reduce((sum, one, i) => sum + one * b[i], 0);

/** x · W. @param {Vector} x (d_in,) @param {Vector[]} matrix (d_in, d_out) */
export function project(x, matrix) {
  return matrix[0].map((_, column) => product(x, matrix.map((row) => row[column])));
}

const direction = (x) => { const length = Math.max(Math.hypot(...x), 1e-12); return x.map((one) => one / length); };

/**
 * How a query and a key are compared: pellucid.attention.energies.
 * @param {string} energy @param {Vector[] | null} W (d_k, d_k) of "bilinear"; (2 d_k, hidden) of "additive" @param {Vector | null} v (hidden,)
 * @returns {(query: Vector, key: Vector) => number}
 */
export function comparison(energy, W = null, v = null) {
  if (energy === "cosine") return (query, key) => product(direction(query), direction(key));
  if (energy === "bilinear" && W) return (query, key) => product(project(query, W), key);
  if (energy === "additive" && W && v) return (query, key) => product(v, project([...query, ...key], W).map(Math.tanh));
  return product;
}

/** How well a query fits each key. @param {Vector} query @param {Vector[]} keys (keys, d_k) */
export function score(query, keys, compare = product) {
  return keys.map((key) => compare(query, key));
}

/** @param {Vector} scores @param {number} factor */
export function scale(scores, factor) {
  return scores.map((one) => one * factor);
}

/** Squashed into (-softcap, softcap). @param {Vector} scaled @param {number | null} softcap */
export function cap(scaled, softcap) {
  return softcap === null ? scaled : scaled.map((one) => softcap * Math.tanh(one / softcap));
}

/** With the bias added, and -∞ where a key is hidden. @param {Vector} capped @param {Vector|null} bias @param {boolean[]|null} visible */
export function mask(capped, bias, visible) {
  return capped.map((one, i) => (visible !== null && !visible[i] ? -Infinity : one + (bias === null ? 0 : bias[i])));
}

/**
 * exp of each logit, less the largest so that none overflows, and each one's share of their sum.
 * Where every key is hidden all shares are zero.
 * @param {Vector} masked @param {number[]} more logits that take part and are no key: a sink, all other tokens
 */
export function softmax(masked, temperature = 1, more = []) {
  const logits = [...masked, ...more].map((one) => one / temperature);
  const largest = logits.reduce((most, one) => Math.max(most, one), -Infinity);
  const exps = logits.map((one) => (largest === -Infinity ? 0 : Math.exp(one - largest)));
  const sum = exps.reduce((total, one) => total + one, 0);
  const shares = exps.map((one) => (sum === 0 ? 0 : one / sum));
  const keys = masked.length;
  return { largest, sum, exps: exps.slice(0, keys), weights: shares.slice(0, keys), moreExps: exps.slice(keys), moreWeights: shares.slice(keys) };
}

/** The values, each as much as its weight says; what has no weight never matters. @param {Vector} weights @param {Vector[]} values (keys, d_v) */
export function mix(weights, values) {
  return values[0].map((_, column) => weights.reduce((sum, weight, i) => (weight === 0 ? sum : sum + weight * values[i][column]), 0));
}

/**
 * All steps of one query.
 * @param {{query: Vector, keys: Vector[], values?: Vector[]|null, scale: number, softcap?: number|null, bias?: Vector|null,
 *   visible?: boolean[]|null, temperature?: number, sink?: number|null, rest?: number|null, restValue?: Vector|null,
 *   compare?: (query: Vector, key: Vector) => number}} given
 *   rest: a logit for all keys that are not among these; restValue: what their values mix to.
 */
export function attend({ query, keys, values = null, scale: factor, softcap = null, bias = null, visible = null, temperature = 1, sink = null, rest = null, restValue = null, compare = product }) {
  const scores = score(query, keys, compare);
  const scaled = scale(scores, factor);
  const capped = cap(scaled, softcap);
  const masked = mask(capped, bias, visible);
  const { moreExps, moreWeights, ...found } = softmax(masked, temperature, [rest ?? -Infinity, sink ?? -Infinity]);
  let context = null;
  if (values !== null) {
    context = restValue === null ? mix(found.weights, values) : mix([...found.weights, moreWeights[0]], [...values, restValue]);
  }
  return {
    scores, scaled, capped, masked, ...found, context,
    restExp: moreExps[0], restWeight: moreWeights[0], sinkExp: moreExps[1], sinkWeight: moreWeights[1],
  };
}

/** Which keys a query may see. @param {string} rule @param {number} query @param {number} keys @param {number|null} offset the key that query 0 stands at @param {number} width of a window, itself included */
export function seen(rule, query, keys, offset, width) {
  if (rule === "none" || offset === null) return null;
  const place = query + offset;
  return Array.from({ length: keys }, (_, key) => key <= place && (rule === "causal" || key > place - width));
}
