/** The positions of the largest weights above 0, largest first; ties in order. @param {ArrayLike<number>} weights @param {number} count at most */
export function strongest(weights, count) {
  /** @type {number[]} */
  const best = [];
  for (let at = 0; at < weights.length; at++) {
    if (!(weights[at] > 0) || (best.length === count && weights[at] <= weights[best[count - 1]])) continue;
    best.push(at);
    best.sort((a, b) => weights[b] - weights[a] || a - b);
    if (best.length > count) best.pop();
  }
  return best;
}
