// The numbers of a lesson. Each has a name like "K.2.1", a value, and inputs.
// Numbers and text alone: it knows nothing of pages.
import { attend, project, seen } from "./arithmetic.js";
import { percent } from "./colours.js";
import { kinds, NAMES } from "./derivations.js";
import { decimal, quote, sentencesOf } from "./sentences.js";

/** All numbers of one query, as they are `now`: that can be changed, and compute() called again. */
export class Steps {
  #kinds;

  /** @param given what ofExample or ofHead gives */
  constructor(given) {
    /** @type {any} */
    this.given = given;
    /** All steps as they are now, see arithmetic.js. @type {ReturnType<typeof attend> & {context: any}} */
    this.found;
    this.size = given.query[0].length;
    this.usual = { scale: given.scale, temperature: 1, rule: given.rule, width: Math.min(3, given.keys.length) };
    this.now = { ...this.usual, query: 0 };
    this.others = Object.keys(NAMES).filter((kind) => given[kind] !== null);
    this.#kinds = kinds(this);
  }

  compute() {
    const { given, now, usual } = this;
    const { query: i, rule } = now;
    this.isChanged = ["scale", "temperature", "rule"].some((name) => now[name] !== usual[name]);
    this.visible = rule === "recorded" ? given.visible[i] : seen(rule, given.first - given.firstKey + i, given.keys.length, given.offset, now.width);
    // The other tokens are known as one number alone, which holds for the model's own scale and mask.
    this.hasRest = given.rest !== null && !this.isChanged;
    const rest = this.hasRest ? { rest: given.rest[i], restValue: given.restValue?.[i] ?? null } : {};
    this.found = this.#attend({ values: given.value, ...rest });
    this.who = given.who(i);
  }

  #attend(more) {
    const { given, now, visible } = this;
    const bias = given.bias?.[now.query] ?? null;
    return attend({ query: given.query[now.query], keys: given.key, scale: now.scale, softcap: given.softcap, bias, visible, temperature: now.temperature, sink: given.sink, ...more });
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
    const value = this.number(name);
    if (Number.isNaN(value)) return "–";
    if (/weight|all/.test(name)) return percent(value);
    if (name === "factor") return decimal(value, 4);
    if (/^x|^X/.test(name)) return decimal(value);
    return decimal(value, /^V|rest-V|context/.test(name) ? this.given.valuePlaces + more : this.given.places + more);
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

/* What the numbers are of, whether an example or a recording gives them */

export function ofExample(one) {
  const { tokens, encodings, projections } = one;
  const of = (role) => (encodings ? encodings.map((x) => project(x, projections[role])) : one[role]);
  const isSelf = one.keys === undefined;
  const query = of("query");
  return {
    ...named({ tokens, keys: one.keys ?? tokens, isSelf, offset: isSelf ? 0 : null }),
    isExample: true, places: 4, valuePlaces: one.name === "lookup" ? 1 : 4,
    encodings, projections, query, key: of("key"), value: of("value"), scale: one.scale ?? 1 / Math.sqrt(query[0].length),
    rule: one.causal ? "causal" : "none", rules: rulesOf(false, isSelf),
    visible: null, bias: null, softcap: null, sink: null, rest: null, restValue: null, about: one.about, of: tokens.length, others: 0,
  };
}

/** @param one the answer to "lesson/…"  @param layer that it is a part of */
export function ofHead(one, layer) {
  const { first_key: firstKey, rest_value: restValue, title, ...given } = one;
  const isSelf = one.offset !== null && firstKey === one.first + one.offset && one.tokens.length === one.keys.length;
  const others = layer.keys - one.keys.length;
  const part = others > 0 ? [`Tokens ${firstKey} to ${firstKey + one.keys.length - 1} of ${layer.keys} are shown; in each softmax, all others are combined into one term.`] : [];
  return {
    ...given, ...named({ ...one, firstKey, isSelf }), restValue,
    isExample: false, places: 2, valuePlaces: 2,
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
