// A page as a file that works offline: the answers are stored in it, by the page or by `pellucid export`.
import { openComputedHeads } from "./computed_heads.js";
import { canonicalPath } from "./data_source.js";

/** An HTML file with some answers, which opens at a state of the URL. @param {PageCode} code @param {[string, CachedAnswer][]} answers @param {string} address @param {string} title */
export async function offlinePage(code, answers, address, title) {
  const index = {};
  const parts = [];
  let at = 0;
  for (const [path, one] of answers) {
    if ("json" in one) index[path] = { json: one.json };
    else {
      index[path] = { shape: one.shape, exact: one.isExact, at };
      parts.push(one.values);
      at += one.values.length;
    }
  }
  const packed = new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"));
  const numbers = await base64(await new Response(packed).blob());
  const json = JSON.stringify({ address, answers: index, numbers }).replaceAll("<", "\\u003c");
  const safe = title.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const fill = { title: safe, style: code.style, data: json, script: code.script.replaceAll("</script", "<\\/script") };
  return code.file.replace(/\{\{(\w+)\}\}/g, (_, name) => fill[name]);
}

/** @param {Blob} blob */
function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The opposite. @param {string} text @returns {Uint8Array<ArrayBuffer>} */
function bytes(text) {
  const letters = atob(text);
  const found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

/** The answers in a file as a source, and the state of the URL at which it opens. @param {HTMLElement} file */
export async function openOfflineSource(file) {
  const { address, answers, numbers, heads = {}, parts = [] } = JSON.parse(file.textContent);
  const unpacked = new Blob([bytes(numbers)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const all = new Float32Array(await new Response(unpacked).arrayBuffer());
  const { side, layers } = answers.about.json;
  const computing = parts.length ? await openComputedHeads(parts, heads, side) : null;

  /** @param {string} path */
  function find(path) {
    const found = answers[canonicalPath(path)];
    if (found?.error !== undefined) throw new Error(found.error);
    if (found) return found;
    throw new Error("this file does not contain it");
  }
  /** @param {string} path */
  function numbersOf(path) {
    const { shape, at, exact } = find(path);
    return { values: all.subarray(at, at + shape.reduce((size, one) => size * one, 1)), shape, isExact: exact };
  }
  /** @typedef {[query: number, key: number, queries: number, keys: number]} Area */
  /** A rectangle of single weights. @param {string} head @param {Area} area @param {AbortSignal} [signal] @returns {Promise<Numbers>} */
  async function rectangle(head, [query, key, queries, keys], signal) {
    const layer = layers[head.split("/")[0]];
    const high = Math.min(queries, layer.queries - query);
    const wide = Math.min(keys, layer.keys - key);
    if (computing?.has(head)) return computing.ask({ head, area: [query, key, high, wide] }, signal);
    const values = new Float32Array(high * wide);
    for (let down = Math.floor(query / side); down * side < query + high; down++) {
      for (let across = Math.floor(key / side); across * side < key + wide; across++) {
        const { values: cells, shape: [, width] } = numbersOf(`tile/${head}/0/${down}/${across}`);
        const [left, right] = [Math.max(key, across * side), Math.min(key + wide, (across + 1) * side)];
        for (let row = Math.max(query, down * side); row < Math.min(query + high, (down + 1) * side); row++) {
          const start = (row - down * side) * width - across * side;
          values.set(cells.subarray(start + left, start + right), (row - query) * wide + left - key);
        }
      }
    }
    return { values, shape: [high, wide], isExact: true };
  }
  /** The same, the mean of all heads. @param {number} layer @param {number} item @param {Area} area @param {AbortSignal} [signal] */
  async function mean(layer, item, area, signal) {
    const { heads: count } = layers[layer];
    const each = await Promise.all(Array.from({ length: count }, (_, head) => rectangle(`${layer}/${item}/${head}`, area, signal)));
    return { ...each[0], values: each[0].values.map((_, i) => each.reduce((sum, { values }) => sum + values[i], 0) / count) };
  }
  const sizes = (/** @type {URLSearchParams} */ options) => /** @type {[number, number]} */ ([Number(options.get("queries") ?? side), Number(options.get("keys") ?? Infinity)]);
  const row = (/** @type {number} */ token) => /** @type {Area} */ ([token, 0, 1, Infinity]);
  const column = (/** @type {number} */ token) => /** @type {Area} */ ([0, token, Infinity, 1]);
  const flat = ({ values }) => ({ values, shape: [values.length], isExact: true });
  /** @type {Record<string, (numbers: number[], options: URLSearchParams, signal?: AbortSignal) => Promise<Numbers>>} */
  const computed = {
    row: async ([layer, item, head, token], _, signal) => flat(await rectangle(`${layer}/${item}/${head}`, row(token), signal)),
    column: async ([layer, item, head, token], _, signal) => flat(await rectangle(`${layer}/${item}/${head}`, column(token), signal)),
    "layer-row": async ([layer, item, token], _, signal) => flat(await mean(layer, item, row(token), signal)),
    "layer-column": async ([layer, item, token], _, signal) => flat(await mean(layer, item, column(token), signal)),
    weights: ([layer, item, head, query, key], options, signal) => rectangle(`${layer}/${item}/${head}`, [query, key, ...sizes(options)], signal),
    mean: ([layer, item, query, key], options, signal) => mean(layer, item, [query, key, ...sizes(options)], signal),
    tile: async ([layer, item, head, ...tile], options, signal) => {
      const place = `${layer}/${item}/${head}`;
      if (!computing?.has(place)) throw new Error("this file does not contain it");
      return computing.ask({ head: place, tile, reduce: options.get("reduce") ?? "mean", isDraft: options.get("exact") === "0" }, signal);
    },
  };
  return {
    address,
    source: {
      json: async (path) => find(path).json,
      numbers: async (path, signal) => {
        const [name, options] = path.split("?");
        const [kind, ...numbers] = name.split("/");
        const isComputed = Object.hasOwn(computed, kind) && !answers[canonicalPath(path)];
        return isComputed ? computed[kind](numbers.map(Number), new URLSearchParams(options), signal) : numbersOf(path);
      },
    },
  };
}
