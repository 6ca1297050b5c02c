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

/** Those of an address that the layers have. @param {string} text @param {Layer[]} layers @returns {Edit[]} */
export function parseEdits(text, layers) {
  return text.split("_").flatMap((one) => {
    const [kind, ...values] = one.split(".");
    const parts = PARTS[kind];
    if (!parts || values.length !== parts.length) return [];
    /** @type {any} */
    const edit = { kind, ...Object.fromEntries(parts.map((part, i) => [part, values[i] === "all" && part === "head" && kind === "link" ? "all" : /^\d{1,9}$/.test(values[i]) ? Number(values[i]) : -1])) };
    const layer = layers[edit.layer];
    const sizes = { head: layer?.heads, query: layer?.queries, key: layer?.keys };
    const isThere = layer && parts.slice(1).every((part) => edit[part] === "all" || (edit[part] >= 0 && edit[part] < sizes[part]));
    return isThere ? [edit] : [];
  });
}
