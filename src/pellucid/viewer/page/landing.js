// Where a page opens that was asked for nothing else: at what its recordings were made for.
import { formatState } from "./url_state.js";

/**
 * The state of the URL.
 * @param {About} about
 * @param {Source} source
 * @param {boolean} isNew whether the first recording has just been read, for this page
 */
export async function landing({ layers, recordings }, source, isNew) {
  if (!layers.length) return "overview";
  const [{ prompt }] = recordings;
  const isBoth = layers.some((layer) => layer.is_cross && layer.recording === 0);
  if (recordings.length === 1 || isNew) {
    if (isBoth && (isNew || prompt === null)) return "links";
    if (prompt !== null) return "generation";
  }
  if (recordings.length > 1 && !isNew) return "compare"; // which finds two heads itself
  const { telling } = await source.json("telling/0").catch(() => ({ telling: null })); // as in older files
  return telling ? formatState("text", telling) : "overview";
}
