// What the server is asked. Numbers come as float32, little-endian, row by row.

/** @typedef {{values: Float32Array, shape: number[], isExact: boolean}} Numbers */

async function answer(path, signal) {
  const found = await fetch(path, { signal });
  if (!found.ok) {
    const { error } = await found.json().catch(() => ({ error: `the server answers ${found.status}` }));
    throw new Error(error);
  }
  return found;
}

export async function json(path, signal) {
  return (await answer(path, signal)).json();
}

/** @returns {Promise<Numbers>} */
export async function numbers(path, signal) {
  const found = await answer(path, signal);
  return {
    values: new Float32Array(await found.arrayBuffer()),
    shape: found.headers.get("X-Shape").split(",").map(Number),
    isExact: found.headers.get("X-Exact") === "1",
  };
}

const CHUNK = 4096;
const known = new Map();

/** All words of one side of a sheet; numbers where the tokens are not known. @returns {Promise<string[]>} */
export function words(sheet, item, side, count) {
  const name = `${side}/${sheet}/${item}`;
  if (!known.has(name)) known.set(name, read(name, count));
  return known.get(name);
}

async function read(name, count) {
  const parts = [];
  for (let first = 0; first < count; first += CHUNK) {
    const { words: some } = await json(`${name}?first=${first}&count=${CHUNK}`);
    if (some === null) return Array.from({ length: count }, (_, i) => `#${i}`);
    parts.push(some);
  }
  return parts.flat();
}
