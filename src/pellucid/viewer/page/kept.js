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
    if (found) return found;
    throw new Error("this is not part of the file");
  }
  function numbersOf(path) {
    const { shape, at, exact } = find(path);
    return { values: all.subarray(at, at + shape.reduce((size, one) => size * one, 1)), shape, isExact: exact };
  }
  /** A row or a column out of single weights. */
  function line(kind, sheet, item, head, token) {
    const isRow = kind === "row";
    const length = isRow ? sheets[sheet].keys : sheets[sheet].queries;
    const values = new Float32Array(length);
    for (let part = 0; part * side < length; part++) {
      const across = Math.floor(token / side);
      const { values: cells, shape } = numbersOf(`tile/${sheet}/${item}/${head}/0/${isRow ? `${across}/${part}` : `${part}/${across}`}`);
      const at = token % side;
      const [count, first, step] = isRow ? [shape[1], at * shape[1], 1] : [shape[0], at, shape[1]];
      for (let i = 0; i < count; i++) values[part * side + i] = cells[first + i * step];
    }
    return { values, shape: [length], isExact: true };
  }
  return {
    address,
    source: {
      json: async (path) => find(path).json,
      numbers: async (path) => {
        const [kind, ...rest] = plain(path).split("/");
        const isLine = (kind === "row" || kind === "column") && !answers[plain(path)];
        return isLine ? line(kind, ...rest.map(Number)) : numbersOf(path);
      },
    },
  };
}
