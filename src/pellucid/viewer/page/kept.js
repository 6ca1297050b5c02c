// Answers in a file: written by one page, or by `pellucid export`, and read by the page in the file.
import { plain } from "./source.js";

/** A whole page of some answers, which opens at an address. */
export async function written(code, answers, address, title) {
  const kept = {};
  const parts = [];
  let at = 0;
  for (const [path, one] of answers) {
    if ("json" in one) kept[path] = { json: one.json };
    else {
      kept[path] = { shape: one.shape, exact: one.isExact, at };
      parts.push(one.values);
      at += one.values.length;
    }
  }
  const packed = new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"));
  const numbers = await base64(await new Response(packed).blob());
  const json = JSON.stringify({ address, answers: kept, numbers }).replaceAll("<", "\\u003c");
  const safe = title.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const fill = { title: safe, style: code.style, kept: json, script: code.script.replaceAll("</script", "<\\/script") };
  return code.file.replace(/\{\{(\w+)\}\}/g, (_, name) => fill[name]);
}

function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The opposite. @returns {Uint8Array} */
function bytes(text) {
  const letters = atob(text);
  const found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

/** What a file holds, as a source, and the address at which it opens. */
export async function opened(file) {
  const { address, answers, numbers } = JSON.parse(file.textContent);
  const unpacked = new Blob([bytes(numbers)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const all = new Float32Array(await new Response(unpacked).arrayBuffer());
  const { side, sheets } = answers.about.json;

  function find(path) {
    const found = answers[plain(path)];
    if (found?.error !== undefined) throw new Error(found.error);
    if (found) return found;
    throw new Error("this is not part of the file");
  }
  function numbersOf(path) {
    const { shape, at, exact } = find(path);
    return { values: all.subarray(at, at + shape.reduce((size, one) => size * one, 1)), shape, isExact: exact };
  }
  /** A rectangle of single weights, out of tiles. */
  function rectangle(sheet, item, head, query, key, queries, keys) {
    const high = Math.min(queries, sheets[sheet].queries - query);
    const wide = Math.min(keys, sheets[sheet].keys - key);
    const values = new Float32Array(high * wide);
    for (let down = Math.floor(query / side); down * side < query + high; down++) {
      for (let across = Math.floor(key / side); across * side < key + wide; across++) {
        const { values: cells, shape: [, width] } = numbersOf(`tile/${sheet}/${item}/${head}/0/${down}/${across}`);
        const [left, right] = [Math.max(key, across * side), Math.min(key + wide, (across + 1) * side)];
        for (let row = Math.max(query, down * side); row < Math.min(query + high, (down + 1) * side); row++) {
          const start = (row - down * side) * width - across * side;
          values.set(cells.subarray(start + left, start + right), (row - query) * wide + left - key);
        }
      }
    }
    return { values, shape: [high, wide], isExact: true };
  }
  /** The same, the mean of all heads. */
  function mean(sheet, item, ...place) {
    const { heads } = sheets[sheet];
    const each = Array.from({ length: heads }, (_, head) => rectangle(sheet, item, head, ...place));
    return { ...each[0], values: each[0].values.map((_, i) => each.reduce((sum, { values }) => sum + values[i], 0) / heads) };
  }
  const sizes = (options) => [Number(options.get("queries") ?? side), Number(options.get("keys") ?? Infinity)];
  const row = (token) => [token, 0, 1, Infinity];
  const column = (token) => [0, token, Infinity, 1];
  const flat = ({ values }) => ({ values, shape: [values.length], isExact: true });
  const made = {
    row: ([sheet, item, head, token]) => flat(rectangle(sheet, item, head, ...row(token))),
    column: ([sheet, item, head, token]) => flat(rectangle(sheet, item, head, ...column(token))),
    "layer-row": ([sheet, item, token]) => flat(mean(sheet, item, ...row(token))),
    "layer-column": ([sheet, item, token]) => flat(mean(sheet, item, ...column(token))),
    weights: (numbers, options) => rectangle(...numbers, ...sizes(options)),
    mean: (numbers, options) => mean(...numbers, ...sizes(options)),
  };
  return {
    address,
    source: {
      json: async (path) => find(path).json,
      numbers: async (path) => {
        const [name, options] = path.split("?");
        const [kind, ...numbers] = name.split("/");
        const isMade = Object.hasOwn(made, kind) && !answers[plain(path)];
        return isMade ? made[kind](numbers.map(Number), new URLSearchParams(options)) : numbersOf(path);
      },
    },
  };
}
