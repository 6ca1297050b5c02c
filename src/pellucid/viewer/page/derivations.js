// How each kind of number in a lesson is computed: as text, and by the names of its inputs.
import { count, decimal, factor } from "./sentences.js";

const LONG = 9; // terms of a sum that may stand before the sum itself
export const NAMES = { rest: "all other tokens", sink: "the sink" }; // what takes part and is no key
const ROLES = { Wq: "query", Wk: "key", Wv: "value" };
const HAND = "a number of the lesson: it can be changed";

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
  const { softcap } = given;
  const text = (name) => steps.text(name);
  const sub = (i) => subscript(Number(i) + 1);
  const key = (j) => `${given.keyNames[j]}${Number(j) === steps.who.own ? " itself" : ""}`;
  const keys = (kind) => given.keys.map((_, j) => `${kind}.${j}`);
  const isLesson = given.lesson !== null;
  const dims = (rows) => rows[0].map((_, d) => d);
  const before = softcap === null ? "scaled" : "capped";
  const whence = isLesson ? HAND : "computed by the model as X · W, plus its bias and rotation, if any";

  /** A sum of products of pairs of numbers. */
  function products(of, pairs, more = []) {
    const term = (name) => (/weight/.test(name) ? decimal(steps.number(name), 4) : steps.text(name, isLesson ? 0 : 1));
    const terms = pairs.map(([a, b], i) => `${i ? minus(term(a)) : term(a)} × ${minus(term(b))}`);
    return { of, way: terms.join(" + "), from: [...pairs.flat(), ...more], isLong: pairs.length >= LONG };
  }
  const hasPositions = () => Boolean(given.lesson?.positions);
  /** A number of a matrix of the lesson itself. */
  const field = (name, of, note = HAND) => ({ number: (i, j) => given.lesson[name][i][j], origin: (i, j) => ({ of: of(i, j), note }) });
  const exp = (of, masked) => ({
    of: `exponential of ${of}`, from: [masked],
    way: `e^(${text(masked)}${now.temperature === 1 ? "" : ` / ${decimal(now.temperature)}`} − ${minus(decimal(steps.found.largest, given.places))})`,
  });
  /** What a query is compared with, by the energy that is chosen. */
  function scored(j) {
    const pairs = given.query[0].map((_, d) => [`q.${d}`, `K.${j}.${d}`]);
    const of = `score of ${key(j)}`;
    if (given.energy === "dot product") return products(of, pairs);
    const from = [...pairs.flat(), ...(given.energy === "bilinear" || given.energy === "additive" ? matrixNames("We", given.lesson.W_energy) : [])];
    const way = { cosine: "q · k / (|q| |k|)", bilinear: "q · W · k", additive: "v · tanh([q, k] · W)" }[given.energy];
    return { of, way, from };
  }
  const matrixNames = (name, matrix) => matrix.flatMap((row, i) => row.map((_, j) => `${name}.${i}.${j}`));
  const share = (of, name) => ({ of: `weight of ${of}`, way: `${text(name)} / ${text("sum")}`, from: [name, "sum"] });
  const weights = (role) => ({
    number: (i, j) => given.projections[ROLES[role]][i][j],
    origin: () => ({ of: `an entry of W_${ROLES[role]}`, note: "a weight, which training would change; here you can" }),
  });
  const projected = (role, letter, W) => ({
    number: (j, d) => given[role][j][d],
    origin(j, d) {
      const of = `${letter}${sub(d)} of ${given.keyNames[j]}`;
      return given.projections ? products(of, dims(given.ofKeys).map((i) => [`${given.isSelf ? "X" : "S"}.${j}.${i}`, `${W}.${i}.${d}`])) : { of, note: whence };
    },
  });
  /** A number of the rest or the sink: the rest has none once something was changed. */
  const other = (kind, number, origin) => ({ number: (a) => (kind === "rest" && !steps.hasRest ? Number.NaN : number(a)), origin });
  const exponential = (kind) => other(kind, () => steps.found[`${kind}Exp`], () => exp(NAMES[kind], `${kind}-masked`));
  const weight = (kind) => other(kind, () => steps.found[`${kind}Weight`], () => share(NAMES[kind], `${kind}-exp`));

  return {
    E: field("embeddings", (i, d) => `e${sub(d)} of ${given.names[i]}`, "the token's row of the embedding table: it can be changed"),
    P: field("positions", (i, d) => `p${sub(d)} of position ${i}`, "the position's row of the position table: it can be changed"),
    S: field("source_embeddings", (j, d) => `x${sub(d)} of ${given.keyNames[j]}`),
    X: {
      number: (i, d) => given.encodings[i][d],
      origin: (i, d) => (hasPositions()
        ? { of: `x${sub(d)} of ${given.names[i]}`, way: `${text(`E.${i}.${d}`)} + ${minus(text(`P.${i}.${d}`))}`, from: [`E.${i}.${d}`, `P.${i}.${d}`] }
        : { of: `x${sub(d)} of ${given.names[i]}`, note: "the encoding of the token: it can be changed" }),
    },
    x: { number: (d) => given.encodings[now.query][d], origin: (d) => ({ of: `x${sub(d)} of ${steps.who.name}`, note: "from the table of encodings", from: [`X.${now.query}.${d}`] }) },
    Q: field("query", (i, d) => `q${sub(d)} of ${given.names[i]}`),
    We: field("W_energy", () => "an entry of the energy's W"),
    ve: field("v_energy", () => "an entry of the energy's v"),
    M: field("mask", (i, j) => `M of ${given.names[i]} and ${given.keyNames[j]}`, "added to the score: 0 leaves it, −∞ hides the key. It can be changed"),
    Wo: field("W_output", () => "an entry of W_output"),
    cat: {
      number: (i) => steps.concat[i],
      origin(i) {
        const size = steps.concat.length / given.heads;
        const head = Math.floor(i / size);
        const from = head === given.head ? [`context.${i % size}`] : [];
        return { of: `number ${Number(i) + 1} of the joined heads`, note: `context${sub(i % size)} of head ${head}${from.length ? "" : ", which another choice of head shows"}`, from };
      },
    },
    out: { number: (o) => steps.output[o], origin: (o) => products(`output${sub(o)} of ${steps.who.name}`, steps.concat.map((_, i) => [`cat.${i}`, `Wo.${i}.${o}`])) },
    Wq: weights("Wq"),
    Wk: weights("Wk"),
    Wv: weights("Wv"),
    q: {
      number: (d) => given.query[now.query][d],
      origin(d) {
        const of = `q${sub(d)} of ${steps.who.name}`;
        return given.projections ? products(of, dims(given.encodings).map((i) => [`x.${i}`, `Wq.${i}.${d}`]), dims(given.encodings).map((i) => `X.${now.query}.${i}`)) : { of, note: whence };
      },
    },
    K: projected("key", "k", "Wk"),
    V: projected("value", "v", "Wv"),
    score: { number: (j) => steps.found.scores[j], origin: scored },
    factor: { number: () => now.scale, origin: () => ({ of: "the scale", note: Math.abs(now.scale * Math.sqrt(size) - 1) < 1e-6 ? `1 / √${size}` : isLesson ? HAND : "set by hand or by the model" }) },
    scaled: { number: (j) => steps.found.scaled[j], origin: (j) => ({ of: `scaled score of ${key(j)}`, way: `${text(`score.${j}`)} × ${factor(now.scale)}`, from: [`score.${j}`, "factor"] }) },
    capped: { number: (j) => steps.found.capped[j], origin: (j) => ({ of: `capped score of ${key(j)}`, way: `${decimal(softcap, 0)} × tanh(${text(`scaled.${j}`)} / ${decimal(softcap, 0)})`, from: [`scaled.${j}`] }) },
    bias: { number: (j) => given.bias[now.query][j] ?? 0, origin: (j) => ({ of: `bias of ${key(j)}`, note: isLesson ? `M${given.isBiasScaled ? ", which the scale multiplies too" : ""}` : "added by the model for the distance between two tokens", from: isLesson ? [`M.${now.query}.${j}`] : [] }) },
    masked: {
      number: (j) => steps.found.masked[j],
      origin(j) {
        const of = `masked score of ${key(j)}`;
        const from = [`${before}.${j}`];
        if (steps.visible !== null && !steps.visible[j]) return { of, note: "hidden by the mask, so its weight will be 0", from };
        if (given.bias === null) return { of, way: text(from[0]), note: "visible, so unchanged", from };
        const times = given.isBiasScaled ? ` × ${factor(now.scale)}` : "";
        return { of, way: `${text(from[0])} + ${minus(text(`bias.${j}`))}${times}`, from: [...from, `bias.${j}`, ...(isLesson ? [`M.${now.query}.${j}`] : [])] };
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
        if (steps.isHidden(j)) return { of: `weight of ${key(j)}`, note: "0, since the mask hides the key", from: [`exp.${j}`] };
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
