// What is knocked out, as the address and the API write it: "head.3.2_word.0.5_link.3.2.7.4".

/**
 * @typedef {{kind: "head", layer: number, head: number}} HeadEdit a head gives nothing
 * @typedef {{kind: "word", layer: number, key: number}} WordEdit nobody attends to a token, in all layers that read the text of this one
 * @typedef {{kind: "link", layer: number, head: number | "all", query: number, key: number}} LinkEdit one token does not attend to another
 * @typedef {HeadEdit | WordEdit | LinkEdit} Edit
 */

const PARTS = { head: ["layer", "head"], word: ["layer", "key"], link: ["layer", "head", "query", "key"] };

/** @param {Edit} edit */
export function formatEdit(edit) {
  return [edit.kind, ...PARTS[edit.kind].map((part) => edit[part])].join(".");
}

/** @param {Edit[]} edits */
export function formatEdits(edits) {
  return edits.map(formatEdit).join("_");
}

/**
 * The edits of an address that the layers have, each once, and what else it says.
 * @param {string} text @param {Layer[]} layers @returns {{edits: Edit[], left: string[]}}
 */
export function parseEdits(text, layers) {
  const names = [...new Set(text.split("_").filter(Boolean))];
  const found = names.map((name) => parseEdit(name, layers));
  /** @type {Map<string, Edit>} */
  const edits = new Map(found.flatMap((edit) => (edit ? [[formatEdit(edit), edit]] : [])));
  return { edits: [...edits.values()], left: names.filter((_, i) => !found[i]) };
}

/** @param {string} text @param {Layer[]} layers @returns {Edit | null} */
function parseEdit(text, layers) {
  const [kind, ...values] = text.split(".");
  const parts = PARTS[kind];
  if (!parts || values.length !== parts.length) return null;
  const read = (/** @type {string} */ part, /** @type {string} */ value) => (kind === "link" && part === "head" && value === "all" ? value : /^\d{1,9}$/.test(value) ? Number(value) : -1);
  /** @type {any} */
  const edit = { kind, ...Object.fromEntries(parts.map((part, i) => [part, read(part, values[i])])) };
  const layer = layers[edit.layer];
  const sizes = { head: layer?.heads, query: layer?.queries, key: layer?.keys };
  const isThere = layer && parts.slice(1).every((part) => edit[part] === "all" || (edit[part] >= 0 && edit[part] < sizes[part]));
  return isThere ? edit : null;
}
