// The numbers of a lesson. Each has a name like "K.2.1", a value, and inputs.
// Numbers and text alone: it knows nothing of pages.
import { attend, comparison, project, seen } from "./arithmetic.js";
import { kinds, NAMES } from "./derivations.js";
import { inputs, isProjected, keyDim, keysOf, parse, shortest, usualScale, withNumber } from "./lesson_document.js";
import { decimal, factor, quote, sentencesOf, weight } from "./sentences.js";

/** The matrices of a lesson, by the first part of the names of their numbers. */
const FIELDS = {
  E: "embeddings", P: "positions", S: "source_embeddings", Wq: "W_query", Wk: "W_key", Wv: "W_value", Wo: "W_output",
  Q: "query", K: "key", V: "value", We: "W_energy", ve: "v_energy", M: "mask",
};
const OF_HEAD = ["Wq", "Wk", "Wv"]; // of which a head has some columns

/** All numbers of one query, as they are `now`: that can be changed, and compute() called again. */
export class Steps {
  #kinds;

  /** @param given what ofLesson or ofHead gives; @param {any} now what is chosen: of a lesson, what is read from it */
  constructor(given, now = null) {
    /** @type {any} */
    this.given = given;
    /** All steps as they are now, see arithmetic.js. @type {ReturnType<typeof attend> & {context: any}} */
    this.found;
    /** The heads side by side, and what W_output makes of them. @type {number[]} */
    this.concat = [];
    this.size = given.query[0].length;
    this.usual = { scale: given.scale, temperature: 1, rule: given.rule, width: Math.min(3, given.keys.length) };
    this.now = now ?? { ...this.usual, query: 0 };
    this.others = Object.keys(NAMES).filter((kind) => given[kind] !== null);
    this.#kinds = kinds(this);
  }

  compute() {
    const { given, now, usual } = this;
    const { query: i } = now;
    this.isChanged = given.lesson === null && ["scale", "temperature", "rule"].some((name) => now[name] !== usual[name]);
    this.visible = this.visibleTo(i);
    // The other tokens are known as one number alone, which holds for the model's own scale and mask.
    this.hasRest = given.rest !== null && !this.isChanged;
    const rest = this.hasRest ? { rest: given.rest[i], restValue: given.restValue?.[i] ?? null } : {};
    this.found = this.#attend({ values: given.value, ...rest });
    this.who = given.who(i);
    if (given.heads > 1) {
      this.concat = Array.from({ length: given.heads }, (_, head) => {
        const { query, key, value } = given.ofHead(head);
        return this.#attend({ query: query[i], keys: key, values: value }).context ?? [];
      }).flat();
      this.output = given.lesson.W_output && project(this.concat, given.lesson.W_output);
    }
  }

  /** Which keys a query may see; null for all. @param {number} i */
  visibleTo(i) {
    const { given, now: { rule, width } } = this;
    return ["recorded", "hand"].includes(rule) ? given.visible?.[i] ?? null : seen(rule, given.first - given.firstKey + i, given.keys.length, given.offset, width);
  }

  #attend(more) {
    const { given, now, visible } = this;
    const added = given.bias?.[now.query] ?? null;
    const bias = added && given.isBiasScaled ? added.map((one) => one * now.scale) : added;
    return attend({ query: given.query[now.query], keys: given.key, scale: now.scale, softcap: given.softcap, bias, visible, temperature: now.temperature, sink: given.sink, compare: given.compare, ...more });
  }

  /** The largest weight among the tokens shown, were the scale another. */
  largest(scale) {
    return Math.max(...this.#attend({ scale }).weights);
  }

  number(name) {
    const [kind, ...place] = name.split(".");
    return this.#kinds[kind].number(...place);
  }

  /** A number as text. @param {number} more decimals than usual */
  text(name, more = 0) {
    const { given } = this;
    const value = this.number(name);
    if (Number.isNaN(value)) return "–";
    if (/weight|all/.test(name)) return /^weight/.test(name) && this.isHidden(name.split(".")[1]) ? "–" : weight(value);
    if (name === "factor") return factor(value);
    if (/^M\b/.test(name) && Number.isInteger(value)) return decimal(value, 0);
    if (/^[xXEPSM]\b/.test(name)) return decimal(value, given.inputPlaces);
    const places = /^V|rest-V|context/.test(name) ? given.valuePlaces : Math.abs(value) >= 10 ? 2 : given.places;
    return decimal(value, places + more);
  }

  /** Whether the mask hides a key of this query. @param {number} key */
  isHidden(key) {
    return this.visible !== null && !this.visible[key];
  }

  /** Where a number stands in the lesson: its field, row and column; null where it is computed. @param {string} name @returns {[string, number?, number?] | null} */
  place(name) {
    const { lesson, head } = this.given;
    if (!lesson) return null;
    let [kind, row, column] = name.split(".");
    if (kind === "factor") return ["scale"];
    if (kind === "X" || kind === "x") {
      if (lesson.positions) return null;
      if (kind === "x") [row, column] = [String(this.now.query), row];
      kind = "E";
    }
    if (kind === "q") [kind, row, column] = ["Q", String(this.now.query), row];
    const field = FIELDS[kind];
    if (!field || !Array.isArray(lesson[field])) return null;
    const first = OF_HEAD.includes(kind) ? head * (lesson[field][0].length / lesson.heads) : 0;
    return [field, Number(row), first + Number(column)];
  }

  /** What a field of this number begins with. @param {string} name */
  editable(name) {
    return shortest(this.number(name));
  }

  /** The lesson with another number. @param {string} name @param {string | number} text @throws {Error} the text means no number that may stand there */
  changed(name, text) {
    const place = /** @type {[string, number?, number?]} */ (this.place(name));
    return withNumber(this.given.lesson, place, typeof text === "number" ? text : parse(text, place[0] === "mask"));
  }

  /** How a number is computed: what it is, the calculation or a note, and the names of its inputs. @param {string} name */
  origin(name) {
    const [kind, ...place] = name.split(".");
    return { from: [], ...this.#kinds[kind].origin(...place) };
  }

  /** Sentences about this query: see sentences.js. */
  get sentences() {
    return sentencesOf({ name: this.who.name, own: this.who.own, names: this.given.keyNames });
  }

  /** What has a weight and is no key. */
  get more() {
    return Object.entries(NAMES).map(([kind, name]) => [name, this.found[`${kind}Weight`]]);
  }

  /** How dark the place of each number is, from 0 to 1. @returns {Map<string, number>} */
  shades() {
    const { scores: score, scaled, capped, masked, weights } = this.found;
    const shades = new Map();
    for (const [kind, numbers] of Object.entries({ score, scaled, capped, masked })) {
      const known = numbers.filter(Number.isFinite);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      numbers.forEach((one, j) => shades.set(`${kind}.${j}`, Number.isFinite(one) && high > low ? 0.05 + (0.4 * (one - low)) / (high - low) : 0));
    }
    // Weights of many tokens are all small: what is darkest grows with the largest, and more slowly.
    const top = Math.sqrt(Math.max(...weights)) || 1;
    for (const kind of ["exp", "weight"]) {
      weights.forEach((one, j) => shades.set(`${kind}.${j}`, one / top));
      for (const other of this.others) shades.set(`${other}-${kind}`, this.found[`${other}Weight`] / top);
    }
    return shades;
  }
}

/* What the numbers are of, whether a lesson or a recording gives them */

/** @param {import("./lesson_document.js").Lesson} lesson @param {number} head */
export function ofLesson(lesson, head = 0) {
  const { tokens, source, heads, mask, about } = lesson;
  const keys = keysOf(lesson);
  const isSelf = source === null;
  const [encodings, ofKeys] = isProjected(lesson) ? inputs(lesson) : [null, null];
  const columns = (matrix, one) => { const size = matrix[0].length / heads; return matrix.map((row) => row.slice(one * size, (one + 1) * size)); };
  const ofHead = (one) => {
    if (!encodings) return { query: lesson.query, key: lesson.key, value: lesson.value };
    const projected = (rows, name) => { const W = columns(lesson[name], one); return rows.map((x) => project(x, W)); };
    return { query: projected(encodings, "W_query"), key: projected(ofKeys, "W_key"), value: projected(ofKeys, "W_value") };
  };
  const isRule = typeof mask === "string";
  const finite = isRule ? null : mask.map((row) => row.map((one) => (one === -Infinity ? 0 : one)));
  const { value, ...vectors } = ofHead(head);
  const isRound = (matrix) => matrix === null || matrix.every((row) => row.every((one) => Math.abs(one * 100 - Math.round(one * 100)) < 1e-4));
  return {
    ...named({ tokens, keys, isSelf, offset: isSelf ? 0 : null }), lesson, head, heads, ofHead,
    places: 4, valuePlaces: value.some((row) => row.some((one) => Math.abs(one) >= 100)) ? 1 : 4,
    inputPlaces: [lesson.embeddings, lesson.positions, lesson.source_embeddings].every(isRound) ? 2 : 4,
    encodings, ofKeys, projections: encodings && { query: columns(lesson.W_query, head), key: columns(lesson.W_key, head), value: columns(lesson.W_value, head) },
    ...vectors, value, scale: lesson.scale ?? usualScale(lesson), size: keyDim(lesson),
    compare: comparison(lesson.energy, lesson.W_energy, lesson.v_energy?.[0]), energy: lesson.energy,
    rule: isRule ? mask : "hand", rules: [...rulesOf(false, isSelf), ["hand", "by hand"]],
    visible: isRule ? null : mask.map((row) => row.map((one) => one > -Infinity)),
    bias: finite?.flat().some((one) => one !== 0) ? finite : null, isBiasScaled: lesson.mask_before_scale,
    softcap: null, sink: null, rest: null, restValue: null, about, of: tokens.length, others: 0,
  };
}

/** @param one the answer to "lesson/…"  @param layer that it is a part of */
export function ofHead(one, layer) {
  const { first_key: firstKey, rest_value: restValue, title, ...given } = one;
  const isSelf = one.offset !== null && firstKey === one.first + one.offset && one.tokens.length === one.keys.length;
  const others = layer.keys - one.keys.length;
  const part = others > 0 ? [`Tokens ${firstKey} to ${firstKey + one.keys.length - 1} of ${layer.keys} are shown; in each softmax, all others are combined into one term.`] : [];
  return {
    ...given, ...named({ ...one, firstKey, isSelf }), restValue, lesson: null, heads: 1, compare: undefined, energy: "dot product",
    places: 2, valuePlaces: 2, inputPlaces: 2, isFirst: layer.number === 0,
    rule: one.visible === null ? "none" : "recorded", rules: rulesOf(one.visible !== null, one.offset !== null),
    about: [title, ...part], of: layer.queries, others,
  };
}

function rulesOf(isRecorded, isOrdered) {
  return [...(isRecorded ? [["recorded", "as recorded"]] : []), ["none", "none"], ...(isOrdered ? [["causal", "causal"], ["window", "window"]] : [])];
}

function named({ tokens, keys, first = 0, firstKey = 0, isSelf, offset }) {
  const names = tokens.map((_, i) => quote(tokens, i, first));
  const keyNames = isSelf ? names : keys.map((_, j) => quote(keys, j, firstKey));
  // Which of the keys a query is, if it is any of them.
  const own = (i) => {
    const at = offset === null ? -1 : first + i + offset - firstKey;
    return at >= 0 && at < keys.length ? at : null;
  };
  return { tokens, keys, names, keyNames, first, firstKey, isSelf, offset, who: (i) => ({ name: names[i], own: own(i) }) };
}
