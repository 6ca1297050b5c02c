// The tokens of a text as strings, loaded once and shared by all views.
import { graphemes } from "./elements.js";

const CHUNK = 4096; // tokens of one answer
/** @type {WeakMap<Source, Map<string, Promise<string[]>>>} */
const loaded = new WeakMap();

/**
 * All tokens of one side of a layer; their positions, like "#3", where tokens are not known.
 * @param {Source} source @param {number} layer @param {number} item @param {Side} side @param {number} count
 */
export function loadTokens(source, layer, item, side, count) {
  const known = loaded.get(source) ?? new Map();
  loaded.set(source, known);
  const path = `${side}/${layer}/${item}`;
  const tokens = known.get(path) ?? loadChunks(source, path, count);
  tokens.catch(() => known.delete(path));
  known.set(path, tokens);
  return tokens;
}

/** @param {Source} source @param {string} path @param {number} count @returns {Promise<string[]>} */
async function loadChunks(source, path, count) {
  const chunks = [];
  for (let first = 0; first < count; first += CHUNK) {
    const { words } = await source.json(`${path}?first=${first}&count=${CHUNK}`);
    if (words === null) return Array.from({ length: count }, (_, i) => `#${i}`);
    chunks.push(words);
  }
  return wholeLetters(chunks.flat());
}

/** Letters that go on in the next tokens, as accents and emoji do, stand whole at their first. @param {string[]} words */
export function wholeLetters(words) {
  const found = [...words];
  let base = 0; // the last word in which something stands
  for (let at = 1; at < found.length; at++) {
    const word = found[at];
    if (!found[base]) base = at - 1;
    if (/^[\x00-\u02ff]/.test(word)) base = at; // a letter that joins no other
    if (!word || base === at) continue;
    const last = graphemes(found[base].slice(-32)).at(-1) ?? "";
    const joined = graphemes(last + word)[0] ?? "";
    if (last && joined.length > last.length) {
      found[base] += joined.slice(last.length);
      found[at] = word.slice(joined.length - last.length);
    }
    if (found[at]) base = at;
  }
  return found;
}

/** The tokens of both sides, filled in as they arrive. @param {Page} page @param {HeadPlace} place @param {() => void} changed */
export function tokenSides({ source, about, signal }, { layer, item }, changed) {
  /** @type {TokenSides} */
  const sides = { queries: null, keys: null };
  for (const side of /** @type {Side[]} */ (["queries", "keys"]))
    loadTokens(source, layer, item, side, about.layers[layer][side]).then((tokens) => {
      if (signal.aborted) return;
      sides[side] = tokens;
      changed();
    }, () => {}); // positions are shown instead
  return sides;
}
