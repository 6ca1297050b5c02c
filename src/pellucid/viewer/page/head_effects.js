// How much the answer of a model changes when each head is knocked out, measured a layer at a time.

/**
 * @param {Source} source @param {AbortSignal} signal
 * @param {(found: {done: number, of: number, rows: import("./head_measures.js").HeadRow[]}) => void} call with what is known so far
 */
export async function loadEffects(source, signal, call) {
  for (let before = -1; ;) {
    const found = await source.json("effects", signal);
    if (signal.aborted) return;
    call(found);
    if (found.done >= found.of || found.done === before) return; // or stuck, as in a file that was saved meanwhile
    before = found.done;
  }
}
