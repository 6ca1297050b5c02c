// How each kind of number in a lesson is computed: as text, and by the names of its inputs.
import { count, decimal } from "./sentences.js";

const LONG = 9; // terms of a sum that may stand before the sum itself
export const NAMES = { rest: "all other tokens", sink: "the sink" }; // what takes part and is no key
const ROLES = { Wq: "query", Wk: "key", Wv: "value" };

export function subscript(number) {
  return String(number).replace(/\d/g, (digit) => String.fromCharCode(0x2080 + Number(digit)));
}

/** A negative number in brackets, where it follows a sign. */
function minus(number) {
  return number.startsWith("−") ? `(${number})` : number;
}

/** By the first part of a name: the number, and its origin. @param {import("./steps.js").Steps} steps */
export function kinds(steps) {
  const { given, now, size } = steps;
  const { encodings, projections, softcap } = given;
  const text = (name) => steps.text(name);
  const sub = (i) => subscript(Number(i) + 1);
  const key = (j) => `${given.keyNames[j]}${Number(j) === steps.who.own ? " itself" : ""}`;
  const keys = (kind) => given.keys.map((_, j) => `${kind}.${j}`);
  const dims = encodings?.[0].map((_, d) => d);
  const before = softcap === null ? "scaled" : "capped";
  const whence = given.isExample ? "given" : "computed by the model as X · W, plus its bias and rotation, if any";

  /** A sum of products of pairs of numbers. */
  function products(of, pairs, more = []) {
    const term = (name) => (/weight/.test(name) ? decimal(steps.number(name), 4) : steps.text(name, given.isExample ? 0 : 1));
    const terms = pairs.map(([a, b], i) => `${i ? minus(term(a)) : term(a)} × ${minus(term(b))}`);
    return { of, way: terms.join(" + "), from: [...pairs.flat(), ...more], isLong: pairs.length >= LONG };
  }
  const encoding = (of) => ({ of, note: "the encoding of the token, given" });
  const exp = (of, masked) => ({
    of: `exponential of ${of}`, from: [masked],
    way: `e^(${text(masked)}${now.temperature === 1 ? "" : ` / ${decimal(now.temperature)}`} − ${minus(decimal(steps.found.largest, given.places))})`,
  });
  const share = (of, name) => ({ of: `weight of ${of}`, way: `${text(name)} / ${text("sum")}`, from: [name, "sum"] });
  const weights = (role) => ({
    number: (i, j) => projections[ROLES[role]][i][j],
    origin: () => ({ of: `an entry of W_${ROLES[role]}`, note: "a learned weight; here a random number, with the seed of the notes" }),
  });
  const projected = (role, letter, W) => ({
    number: (j, d) => given[role][j][d],
    origin(j, d) {
      const of = `${letter}${sub(d)} of ${given.keyNames[j]}`;
      return projections ? products(of, dims.map((i) => [`X.${j}.${i}`, `${W}.${i}.${d}`])) : { of, note: whence };
    },
  });
  /** A number of the rest or the sink: the rest has none once something was changed. */
  const other = (kind, number, origin) => ({ number: (a) => (kind === "rest" && !steps.hasRest ? Number.NaN : number(a)), origin });
  const exponential = (kind) => other(kind, () => steps.found[`${kind}Exp`], () => exp(NAMES[kind], `${kind}-masked`));
  const weight = (kind) => other(kind, () => steps.found[`${kind}Weight`], () => share(NAMES[kind], `${kind}-exp`));

  return {
    X: { number: (i, d) => encodings[i][d], origin: (i, d) => encoding(`x${sub(d)} of ${given.names[i]}`) },
    x: { number: (d) => encodings[now.query][d], origin: (d) => ({ ...encoding(`x${sub(d)} of ${steps.who.name}`), from: [`X.${now.query}.${d}`] }) },
    Wq: weights("Wq"),
    Wk: weights("Wk"),
    Wv: weights("Wv"),
    q: {
      number: (d) => given.query[now.query][d],
      origin(d) {
        const of = `q${sub(d)} of ${steps.who.name}`;
        return projections ? products(of, dims.map((i) => [`x.${i}`, `Wq.${i}.${d}`]), dims.map((i) => `X.${now.query}.${i}`)) : { of, note: whence };
      },
    },
    K: projected("key", "k", "Wk"),
    V: projected("value", "v", "Wv"),
    score: { number: (j) => steps.found.scores[j], origin: (j) => products(`score of ${key(j)}`, given.query[0].map((_, d) => [`q.${d}`, `K.${j}.${d}`])) },
    factor: { number: () => now.scale, origin: () => ({ of: "the scale", note: Math.abs(now.scale * Math.sqrt(size) - 1) < 1e-6 ? `1 / √${size}` : "set by hand or by the model" }) },
    scaled: { number: (j) => steps.found.scaled[j], origin: (j) => ({ of: `scaled score of ${key(j)}`, way: `${text(`score.${j}`)} × ${decimal(now.scale, 4)}`, from: [`score.${j}`, "factor"] }) },
    capped: { number: (j) => steps.found.capped[j], origin: (j) => ({ of: `capped score of ${key(j)}`, way: `${decimal(softcap, 0)} × tanh(${text(`scaled.${j}`)} / ${decimal(softcap, 0)})`, from: [`scaled.${j}`] }) },
    bias: { number: (j) => given.bias[now.query][j] ?? 0, origin: (j) => ({ of: `bias of ${key(j)}`, note: "added by the model for the distance between two tokens" }) },
    masked: {
      number: (j) => steps.found.masked[j],
      origin(j) {
        const of = `masked score of ${key(j)}`;
        const from = [`${before}.${j}`];
        if (steps.visible !== null && !steps.visible[j]) return { of, note: "hidden by the mask, so its weight will be 0", from };
        if (given.bias === null) return { of, way: text(from[0]), note: "visible, so unchanged", from };
        return { of, way: `${text(from[0])} + ${minus(text(`bias.${j}`))}`, from: [...from, `bias.${j}`] };
      },
    },
    exp: { number: (j) => steps.found.exps[j], origin: (j) => ({ ...exp(key(j), `masked.${j}`), note: "the largest score is subtracted first, which changes no weight and prevents overflow" }) },
    sum: {
      number: () => steps.found.sum,
      origin() {
        const from = [...keys("exp"), ...steps.others.map((kind) => `${kind}-exp`)];
        return { of: "sum of exponentials", way: from.filter((name) => steps.hasRest || name !== "rest-exp").map(text).join(" + "), from };
      },
    },
    weight: {
      number: (j) => steps.found.weights[j],
      origin(j) {
        const { way, ...more } = share(key(j), `exp.${j}`);
        return { ...more, way: `${way} = ${decimal(steps.found.weights[j], 4)}` };
      },
    },
    all: {
      number: () => steps.found.weights.reduce((sum, one) => sum + one, steps.found.restWeight + steps.found.sinkWeight),
      origin: () => ({ of: "all weights", note: "they sum to one", from: [...keys("weight"), ...steps.others.map((kind) => `${kind}-weight`)] }),
    },
    context: {
      number: (d) => steps.found.context[d],
      origin(d) {
        const pairs = given.keys.map((_, j) => [`weight.${j}`, `V.${j}.${d}`]).filter((_, j) => steps.found.weights[j] > 0);
        if (steps.hasRest && given.restValue !== null) pairs.push(["rest-weight", `rest-V.${d}`]);
        return products(`context${sub(d)} of ${steps.who.name}`, pairs);
      },
    },
    "rest-masked": other("rest", () => given.rest[now.query] ?? -Infinity, () => ({ of: NAMES.rest, note: `${count(given.others, "token")} that are not shown, combined: the log of the sum of their e^masked` })),
    "sink-masked": other("sink", () => given.sink, () => ({ of: NAMES.sink, note: "a learned logit that takes part in the softmax but has no value" })),
    "rest-exp": exponential("rest"),
    "sink-exp": exponential("sink"),
    "rest-weight": weight("rest"),
    "sink-weight": weight("sink"),
    "rest-V": other("rest", (d) => given.restValue[now.query][d], () => ({ of: NAMES.rest, note: "the weighted mean of their values" })),
  };
}
