// Where answers come from: a server, a kernel behind a notebook, or the file itself. All give the
// same: json(path, signal) and numbers(path, signal); those that can also code(), what a page is made of.

/** @typedef {{values: Float32Array, shape: number[], isExact: boolean}} Numbers */

const CHUNK = 4096;
const MOST_KEPT = 64 * 2 ** 20; // bytes of answers that a view remembers for its export
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g; // signs that turn the text around them, and numbers in it
/** Names of answers that every view needs. */
export const COMMON = /^(about|heads|keys|queries)\b/;
const said = new WeakMap();

/** All words of one side of a sheet; numbers where the tokens are not known. @returns {Promise<string[]>} */
export function words(source, sheet, item, side, count) {
  if (!said.has(source)) said.set(source, new Map());
  const known = said.get(source);
  const name = `${side}/${sheet}/${item}`;
  if (!known.has(name)) {
    const found = read(source, name, count);
    found.catch(() => known.delete(name));
    known.set(name, found);
  }
  return known.get(name);
}

async function read(source, name, count) {
  const parts = [];
  for (let first = 0; first < count; first += CHUNK) {
    const { words: some } = await source.json(`${name}?first=${first}&count=${CHUNK}`);
    if (some === null) return Array.from({ length: count }, (_, i) => `#${i}`);
    parts.push(some);
  }
  return parts.flat();
}

/** A server that the page came from. */
export function served() {
  const answer = async (path, signal) => {
    const found = await fetch(path, { signal });
    if (found.ok) return found;
    const { error } = await found.json().catch(() => ({ error: `the server answers ${found.status}` }));
    throw new Error(error);
  };
  const text = async (name) => (await answer(`page/${name}`)).text();
  return {
    json: async (path, signal) => (await answer(path, signal)).json(),
    numbers: async (path, signal) => {
      const found = await answer(path, signal);
      const shape = found.headers.get("X-Shape").split(",").map(Number);
      return { values: new Float32Array(await found.arrayBuffer()), shape, isExact: found.headers.get("X-Exact") === "1" };
    },
    code: async () => {
      const [script, style, file] = await Promise.all(["bundle.js", "style.css", "file.html"].map(text));
      return { script, style, file };
    },
  };
}

/** A source that remembers what it was asked since `forget`, so that it can be put into a file. */
export function remembered(source) {
  const taken = new Map();
  let bytes = 0;
  const keep = (path, answer) => {
    const size = (one) => one?.values?.byteLength ?? 0;
    bytes += size(answer) - size(taken.get(path));
    taken.delete(path);
    taken.set(path, answer);
    for (const [oldest, one] of taken) {
      if (bytes <= MOST_KEPT) break;
      if (!size(one)) continue;
      bytes -= size(one);
      taken.delete(oldest);
    }
    return answer;
  };
  return {
    ...source,
    json: async (path, signal) => keep(plain(path), { json: straight(await source.json(path, signal)) }).json,
    numbers: async (path, signal) => keep(plain(path), await source.numbers(path, signal)),
    taken,
    /** Only what every view needs stays. */
    forget: () => {
      bytes = 0;
      for (const path of taken.keys()) if (!COMMON.test(path)) taken.delete(path);
    },
  };
}

/** An answer in which no word of a document turns what the page writes beside it. */
function straight(answer) {
  const text = JSON.stringify(answer);
  return text.search(TURNING) < 0 ? answer : JSON.parse(text.replace(TURNING, "\ufffd"));
}

/** The name under which a file keeps an answer: drafts are not kept, and single weights have no reduce. */
export function plain(path) {
  const [name, options = ""] = path.split("?");
  const asked = new URLSearchParams(options);
  asked.delete("exact");
  if (name.startsWith("tile/") && name.split("/")[4] === "0") asked.delete("reduce");
  return String(asked) ? `${name}?${asked}` : name;
}
