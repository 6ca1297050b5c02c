// A lesson as a document: everything that its numbers are computed from, with the fields of pellucid.lessons.lesson.Lesson.
// Documents are never changed: each function gives another one. Numbers and text alone: it knows nothing of pages.
import { TorchRandom } from "./torch_random.js";

/** @typedef {Record<string, any>} Lesson */

const USUAL = {
  tokens: [], source: null, title: "", about: [], speaker: 0, embeddings: null, positions: null, source_embeddings: null,
  W_query: null, W_key: null, W_value: null, W_output: null, heads: 1, query: null, key: null, value: null,
  energy: "dot product", W_energy: null, v_energy: null, scale: null, temperature: 1, mask: "none", window: 3, mask_before_scale: false,
};
export const ENERGIES = ["dot product", "cosine", "bilinear", "additive"];
const RULES = ["none", "causal", "window"];
export const MOST = { tokens: 64, size: 64, number: 1e9, seed: 2 ** 32 - 1 };
const [LEAST, LARGEST] = [1e-6, 1e6]; // of a scale and a temperature

const copy = (matrix) => matrix.map((row) => [...row]);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** With every field. @param {Lesson} some as JSON gives it, where null in a mask is −∞ @returns {Lesson} */
export function whole(some) {
  const { mask = USUAL.mask } = some;
  return { ...USUAL, ...some, mask: Array.isArray(mask) ? mask.map((row) => row.map((one) => one ?? -Infinity)) : mask };
}

/** The fields in which a lesson differs from another, by default from one without any. JSON writes −∞ as null. @param {Lesson} lesson @param {Lesson} from */
export function difference(lesson, from = USUAL) {
  return Object.fromEntries(Object.keys(USUAL).filter((name) => !same(lesson[name], from[name])).map((name) => [name, lesson[name]]));
}

export const keysOf = (lesson) => lesson.source ?? lesson.tokens;
export const isProjected = (lesson) => lesson.embeddings !== null;
/** Numbers of a query and key of one head. */
export const keyDim = (lesson) => (isProjected(lesson) ? lesson.W_query[0].length / lesson.heads : lesson.query[0].length);

export function usualScale(lesson) {
  return lesson.energy === "dot product" ? 1 / Math.sqrt(keyDim(lesson)) : 1;
}

/** The rows of X, for queries, and for keys and values. @param {Lesson} lesson @returns {[number[][], number[][]]} */
export function inputs({ embeddings, positions, source_embeddings: ofSource }) {
  const x = positions === null ? embeddings : embeddings.map((row, i) => row.map((one, d) => one + positions[i][d]));
  return [x, ofSource ?? x];
}

/** What is wrong with a lesson that came from elsewhere, or null. @param {Lesson} lesson */
export function problem(lesson) {
  const { tokens, source, heads } = lesson;
  const areTexts = (some) => Array.isArray(some) && some.every((one) => typeof one === "string");
  const isText = (some) => areTexts(some) && some.length > 0 && some.length <= MOST.tokens;
  const isWhole = (number, most) => Number.isInteger(number) && number >= 1 && number <= most;
  if (Object.keys(lesson).some((name) => !Object.hasOwn(USUAL, name))) return "it has a field that no lesson has";
  if (!isText(tokens) || (source !== null && !isText(source))) return "tokens are missing";
  if (!areTexts(lesson.about) || typeof lesson.title !== "string" || typeof lesson.mask_before_scale !== "boolean") return "a field is of another type";
  if (!isWhole(heads, MOST.size) || !isWhole(lesson.window, MOST.number)) return "its heads or window are out of range";
  const keys = keysOf(lesson).length;
  const sized = (name, rows, columns, least = -Infinity) => {
    const matrix = lesson[name];
    const width = columns ?? matrix?.[0]?.length;
    const isRow = (row) => Array.isArray(row) && row.length === width && row.every((one) => typeof one === "number" && (Number.isFinite(one) || one === least) && Math.abs(one === least ? 0 : one) <= MOST.number);
    return Array.isArray(matrix) && width > 0 && matrix.length === rows && matrix.every(isRow) ? width : 0;
  };
  let size = 0;
  if (isProjected(lesson)) {
    const width = sized("embeddings", tokens.length);
    if (!width) return "embeddings do not fit";
    if (lesson.positions !== null && !sized("positions", tokens.length, width)) return "positions do not fit";
    const ofKeys = source === null ? width : sized("source_embeddings", keys);
    const [ofQuery, ofValue] = [sized("W_query", width), sized("W_value", ofKeys)];
    size = ofQuery / heads;
    if (!ofQuery || !ofValue || !sized("W_key", ofKeys, ofQuery) || !Number.isInteger(size) || !Number.isInteger(ofValue / heads)) return "matrices do not fit";
    if (lesson.W_output !== null && !sized("W_output", ofValue)) return "W_output does not fit";
  } else {
    size = sized("query", tokens.length);
    if (!size || !sized("key", keys, size) || !sized("value", keys)) return "query, key and value do not fit";
    if (heads !== 1) return "heads go with embeddings";
  }
  if (!ENERGIES.includes(lesson.energy)) return "its energy is unknown";
  if (lesson.energy === "bilinear" && !sized("W_energy", size, size)) return "W_energy does not fit";
  if (lesson.energy === "additive" && !(sized("W_energy", 2 * size) && sized("v_energy", 1, lesson.W_energy[0].length))) return "W_energy does not fit";
  if (typeof lesson.mask === "string" ? !RULES.includes(lesson.mask) : !sized("mask", tokens.length, keys, -Infinity)) return "its mask does not fit";
  if (source !== null && ["causal", "window"].includes(lesson.mask)) return "its mask has no meaning in cross-attention";
  for (const number of [lesson.scale ?? 1, lesson.temperature]) if (!(typeof number === "number" && number >= LEAST && number <= LARGEST)) return "its scale or temperature is out of range";
  if (!isWhole(lesson.speaker + 1, tokens.length)) return "its speaker is not among its tokens";
  return null;
}

/** The number that a text means. @param {string} text @param {boolean} isMask whether it may be −∞ @throws {Error} it means none */
export function parse(text, isMask = false) {
  const plain = text.trim().replace(/^[−–]/, "-").replace(/^(-?\d*),(\d+)$/, "$1.$2");
  if (isMask && /^-(∞|inf(inity)?)$/i.test(plain)) return -Infinity;
  const number = plain === "" ? Number.NaN : Number(plain);
  if (!Number.isFinite(number)) throw new Error(`“${text}” is not a number: type one like −0.5${isMask ? ", or -inf to hide the key" : ""}`);
  if (Math.abs(number) > MOST.number) throw new Error(`${text} is too large: at most ${MOST.number.toExponential()}`);
  return number;
}

/** A number as short as it can be read again: those of float32 tensors too. @param {number} value */
export function shortest(value) {
  if (!Number.isFinite(value)) return "-inf";
  if (Math.fround(value) === value) {
    for (let digits = 1; digits < 10; digits++) if (Math.fround(Number(value.toPrecision(digits))) === value) return String(Number(value.toPrecision(digits)));
  }
  return String(value);
}

/** With another number. @param {Lesson} lesson @param {[string, number?, number?]} place field, row and column @param {number} value */
export function withNumber(lesson, [field, row, column], value) {
  if (row === undefined || column === undefined) {
    if (!(value >= LEAST && value <= LARGEST)) throw new Error(`the ${field} must be from 0.000001 to 1,000,000`);
    return { ...lesson, [field]: value };
  }
  const matrix = copy(lesson[field]);
  matrix[row][column] = value;
  return { ...lesson, [field]: matrix };
}

/** @param {Lesson} lesson @param {string} energy */
export function withEnergy(lesson, energy) {
  const size = keyDim(lesson);
  const identity = Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => Number(i === j)));
  const more = { bilinear: { W_energy: identity, v_energy: null }, additive: { W_energy: [...identity, ...copy(identity)], v_energy: [Array(size).fill(1)] } }[energy];
  return { ...lesson, energy, scale: null, ...(more ?? { W_energy: null, v_energy: null }) };
}

/** With a rule, or "hand": M itself, beginning with what the rule until now says. @param {Lesson} lesson @param {string} rule @param {(query: number) => boolean[] | null} visible */
export function withMask(lesson, rule, visible) {
  if (rule !== "hand") return { ...lesson, mask: rule };
  if (typeof lesson.mask !== "string") return lesson;
  const keys = keysOf(lesson);
  return { ...lesson, mask: lesson.tokens.map((_, i) => { const row = visible(i); return keys.map((_, j) => (row && !row[j] ? -Infinity : 0)); }) };
}

/** With position embeddings, as `randomLesson` draws them, or without. @param {Lesson} lesson @param {number} seed */
export function withPositions(lesson, isOn, seed) {
  if (!isOn) return { ...lesson, positions: null };
  const { tokens, embeddings } = lesson;
  return { ...lesson, positions: halved(new TorchRandom(seed).normal(tokens.length, embeddings[0].length)) };
}

/** The words in the opposite order; positions stay where they are. @param {Lesson} lesson */
export function reversed(lesson) {
  const turned = {};
  for (const name of ["tokens", "embeddings", "query", ...(lesson.source ? [] : ["key", "value"])]) turned[name] = lesson[name] && [...lesson[name]].reverse();
  return { ...lesson, ...turned, speaker: lesson.tokens.length - 1 - lesson.speaker };
}

/**
 * With other words: those that stay keep their numbers, as one that is renamed does; new ones get a row drawn by a seed made of their letters.
 * @param {Lesson} lesson @param {"tokens" | "source"} side @param {string[]} words @param {Record<string, number>} wheel colours that are directions, in degrees
 */
export function withWords(lesson, side, words, wheel = {}) {
  const old = lesson[side];
  const from = rowsFrom(old, words);
  const isColours = !isProjected(lesson) && keyDim(lesson) === 2 && old.every((word) => word.toLowerCase() in wheel);
  const fresh = (word, name) => {
    const length = lesson[name][0].length;
    const angle = (wheel[word.toLowerCase()] ?? Number.NaN) * (Math.PI / 180);
    if (isColours && name !== "value") {
      if (Number.isNaN(angle)) throw new Error(`“${word}” is not a colour on the wheel: ${Object.keys(wheel).join(", ")}`);
      return [Math.cos(angle), Math.sin(angle)];
    }
    return name === "value" ? Array(length).fill(0) : short(new TorchRandom(hash(word)).normal(1, length))[0];
  };
  const rows = (name) => lesson[name] && words.map((word, i) => (from[i] < 0 ? fresh(word, name) : lesson[name][from[i]]));
  const isSelf = lesson.source === null;
  const changed = /** @type {Lesson} */ ({ [side]: words });
  const names = side === "source" ? ["source_embeddings", "key", "value"] : ["embeddings", "query", ...(isSelf ? ["key", "value"] : [])];
  for (const name of names) changed[name] = rows(name);
  if (side === "tokens") {
    if (lesson.positions) {
      const width = lesson.positions[0].length;
      changed.positions = words.map((_, i) => lesson.positions[i] ?? halved(new TorchRandom(i).normal(1, width))[0]);
    }
    changed.speaker = Math.max(0, from.indexOf(lesson.speaker) < 0 ? Math.min(lesson.speaker, words.length - 1) : from.indexOf(lesson.speaker));
  }
  if (typeof lesson.mask !== "string") {
    const taken = (line, empty) => words.map((_, i) => (from[i] < 0 ? empty : line[from[i]]));
    let { mask } = lesson;
    if (side === "tokens") mask = taken(mask, Array(keysOf(lesson).length).fill(0));
    if (side === "source" || isSelf) mask = mask.map((row) => taken(row, 0));
    changed.mask = mask;
  }
  return { ...lesson, ...changed, title: side === "tokens" ? words.join(" ") : lesson.title };
}

/** Which old row each of the words has: its own, that of the word it replaces, or −1. @param {string[]} old @param {string[]} words */
function rowsFrom(old, words) {
  let first = 0;
  while (first < old.length && first < words.length && old[first] === words[first]) first++;
  let last = 0;
  while (last < Math.min(old.length, words.length) - first && old.at(-1 - last) === words.at(-1 - last)) last++;
  const isRenamed = old.length === words.length;
  return words.map((word, i) => {
    if (i < first) return i;
    if (i >= words.length - last) return i - words.length + old.length;
    const known = old.indexOf(word);
    return known >= 0 ? known : isRenamed ? i : -1;
  });
}

/** With a second sentence to attend to, or none: its words have the rows of a seed made of their letters, or those they have already. @param {Lesson} lesson @param {string[]} words */
export function withSource(lesson, words) {
  if (words.length === 0) return { ...lesson, source: null, source_embeddings: null, mask: typeof lesson.mask === "string" ? lesson.mask : "none" };
  const width = lesson.embeddings[0].length;
  const row = (word) => { const at = lesson.tokens.indexOf(word); return at < 0 ? short(new TorchRandom(hash(word)).normal(1, width))[0] : lesson.embeddings[at]; };
  return { ...lesson, source: words, source_embeddings: words.map(row), mask: "none" };
}

/** A seed out of letters (FNV-1a). @param {string} word */
function hash(word) {
  let seed = 0x811c9dc5;
  for (const letter of new TextEncoder().encode(word)) seed = Math.imul(seed ^ letter, 0x01000193);
  return seed >>> 0;
}

/** The numbers of float32 tensors as short as float32 tells them apart, as lesson.py writes them. @param {number[][]} matrix */
const short = (matrix) => matrix.map((row) => row.map((one) => Number(shortest(one))));
const halved = (matrix) => short(matrix.map((row) => row.map((one) => one / 2)));

/**
 * pellucid.lessons.lesson.random_lesson: a lesson on one's own words, drawn by a seed.
 * @param {{words: string[], source?: string[] | null, width?: number, size?: number, heads?: number, seed?: number, form?: string, positions?: boolean}} how
 * @returns {Lesson}
 */
export function randomLesson({ words, source = null, width = 4, size = 2, heads = 1, seed = 0, form = "parameters", positions = true }) {
  const draw = new TorchRandom(seed);
  const table = [...new Set([...words, ...(source ?? [])])];
  const vocabulary = draw.normal(table.length, width);
  const places = draw.normal(Math.max(words.length, source?.length ?? 0), width).map((row) => row.map((one) => one / 2));
  const out = heads * size;
  const [W_query, W_key, W_value] = Array.from({ length: 3 }, () => short(form === "linear" ? draw.linear(width, out) : draw.uniform(width, out)));
  const W_output = heads > 1 ? short(draw.uniform(out, width)) : null;
  const rows = (some) => some.map((word) => vocabulary[table.indexOf(word)]);
  const placed = (row, i) => row.map((one, d) => Math.fround(one + (positions ? places[i][d] : 0)));
  const how = form === "linear" ? "torch.nn.Linear" : "torch.rand";
  return whole({
    tokens: words, source, title: words.join(" "),
    about: [`Your own words. Embeddings and weights are random: seed ${seed}, ${how}.`],
    embeddings: short(rows(words)), positions: positions ? short(places.slice(0, words.length)) : null,
    source_embeddings: source && short(rows(source).map(placed)),
    W_query, W_key, W_value, W_output, heads,
  });
}

/** The numbers of a recording as a lesson; null where they are more than a lesson holds. @param {any} given as ofHead of steps.js gives it @param {number} speaker @returns {Lesson | null} */
export function fromRecording(given, speaker) {
  const { tokens, keys, isSelf, query, key, value, scale, visible, bias, about } = given;
  if (value === null || [given.rest, given.sink, given.softcap].some((one) => one !== null)) return null;
  const short = (matrix) => matrix.map((row) => row.map((one) => Number(one.toPrecision(6))));
  const isCausal = isSelf && bias === null && visible?.every((row, i) => row.every((one, j) => one === j <= i));
  const M = tokens.map((_, i) => keys.map((_, j) => (visible && !visible[i][j] ? -Infinity : bias ? Number(bias[i][j].toPrecision(6)) : 0)));
  return whole({
    tokens, source: isSelf ? null : keys, title: tokens.join(" ").slice(0, 80), about, speaker, query: short(query), key: short(key), value: short(value),
    scale: Number(scale.toPrecision(9)), mask: isCausal ? "causal" : visible || bias ? M : "none",
  });
}

/** Text for an address, compressed where that is shorter. @param {object} some */
export async function pack(some) {
  const text = JSON.stringify(some);
  if (text.length < 200) return text;
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return `~${btoa(Array.from(bytes, (one) => String.fromCharCode(one)).join("")).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** The opposite; the text is at most so long. @param {string} text */
export async function unpack(text, most = 2 ** 20) {
  if (!text.startsWith("~")) return JSON.parse(text);
  const bytes = Uint8Array.from(atob(text.slice(1).replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).pipeThrough(new TextDecoderStream()).getReader();
  let read = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    read += part.value;
    if (read.length > most) throw new Error("it is too long");
  }
  return JSON.parse(read);
}
