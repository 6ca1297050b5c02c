// The steps of a lesson as parts of the page: each has a name, a formula, a sentence, its tables, and what can be changed.
import { subscript } from "./derivations.js";
import { createElement } from "./elements.js";
import { ENERGIES, isProjected, withEnergy } from "./lesson_document.js";
import { count, decimal, factor, percents, vectors } from "./sentences.js";
import { positionsSwitch, setup } from "./setup.js";
import { maskChoice, oneOf, scaleSlider, temperatureSlider, why } from "./sliders.js";

const axis = (letter, n) => Array.from({ length: n }, (_, i) => `${letter}${subscript(i + 1)}`);
const numbered = (name, n) => Array.from({ length: n }, (_, i) => `${name}.${i}`);
const FORMULAS = { "dot product": "scores = q · Kᵀ", cosine: "scores = cos(q, K)", bilinear: "scores = q · W · Kᵀ", additive: "scores = v · tanh([q, K] · W)" };

/** @typedef {[string, string | (() => string), () => string, ...Node[]]} Step name, formula, sentence, and tables or controls */

/** @param {any} lesson steps, grids, follow, changed; and of a lesson that can be changed, state and change */
export function sections(lesson) {
  return stepsOf(lesson).map((part, i) => section(lesson.follow, i + 1, part));
}

/** Each step: its name, its formula, what it does here, and its tables and sliders. @returns {Step[]} */
function stepsOf(all) {
  const { steps, grids, state } = all;
  const { given, now } = steps;
  const { key: K, value: V } = given;
  const names = { rest: "all other tokens", sink: "sink" };
  const across = ["", "", ...given.keys];
  const ofKeys = (kind) => K.map((_, j) => `${kind}.${j}`);
  const others = (kind) => steps.others.map((other) => `${other}-${kind}`);
  const inner = grids.shown(steps.size);

  const score = grids.grid("The query beside the keys, and the scores below", ["", "q", ...given.keys], [
    ...Array.from({ length: inner.count }, (_, d) => ({ label: String(d + 1), cells: [`q.${d}`, ...K.map((_, j) => `K.${j}.${d}`)], side: 1 })),
    ...inner.more,
    { label: "score", cells: [null, ...ofKeys("score")], isResult: true, isApart: true },
  ], "across");
  const scale = grids.grid("The scaled scores", across, [{ label: "scaled", cells: ["factor", ...ofKeys("scaled")], side: 1, isResult: true }], "across");
  const cap = given.softcap === null ? [] : [
    ["Cap", "capped = softcap · tanh(scaled / softcap)", () => `Scores are limited to the range from ${decimal(-given.softcap, 0)} to ${decimal(given.softcap, 0)}.`,
      grids.grid("The capped scores", across, [{ label: "capped", cells: [null, ...ofKeys("capped")], isResult: true }], "across")],
  ];
  const mask = grids.grid("The masked scores", [...across, ...steps.others.map((kind) => names[kind])], [
    ...(given.bias === null || given.lesson ? [] : [{ label: "bias", cells: [null, ...ofKeys("bias")] }]),
    { label: "masked", cells: [null, ...ofKeys("masked"), ...others("masked")], isResult: true },
  ], "across");
  const softmax = grids.grid("Exponentials and weights", [...across, ...steps.others.map((kind) => names[kind]), "sum"], [
    { label: "exp", cells: [null, ...ofKeys("exp"), ...others("exp"), "sum"] },
    { label: "weight", cells: [null, ...ofKeys("weight"), ...others("weight"), "all"], isResult: true },
  ], "across");
  const attention = () => {
    const notes = all.example === "poem" && !state.isChanged && steps.who.own === 0 ? ` The word "write" is ${percents(steps.found.weights[0])} similar to itself.` : "";
    const part = given.rest !== null && !steps.hasRest ? ` With the sliders moved, only the ${count(given.keys.length, "token")} shown here take part.` : "";
    return steps.sentences.softmax(steps.found.weights, steps.more) + notes + part;
  };
  const logit = () => (now.temperature === 1 ? "masked − max" : "masked / τ − max");
  return /** @type {Step[]} */ ([
    ...(state ? before(all) : ofModel(all)),
    ["Score", () => FORMULAS[given.energy], () => steps.sentences.score(steps.found.scores, steps.visible), score, ...(state ? energies(all) : [])],
    ["Scale", () => `scaled = scores × ${factor(now.scale)}`, () => steps.sentences.scale(steps.found.scores, now.scale, steps.size), scale,
      createElement("div", { className: "play" }, scaleSlider(all), ...(given.energy === "dot product" && (given.encodings || given.isSelf || !state) ? [why(all)] : []))],
    ...cap,
    ["Mask", () => maskFormula(given), () => steps.sentences.mask(steps.found.masked) + (given.lesson && given.bias ? order(given, now) : ""), mask, maskChoice(all), ...(now.rule === "hand" ? byHand(all) : [])],
    ["Softmax", () => `weight = e^{${logit()}} / Σ e^{${logit()}}`, attention, softmax, createElement("p", { className: "faint", textContent: "max is the largest in the row. Taking it off changes no weight, since it cancels, and no exponential grows too large." }), temperatureSlider(all)],
    ["Mix", "context = weights · V", ...(V === null ? [() => "The values were not recorded. watch(model, values=True) records them."] : [() => steps.sentences.mix(steps.found.weights, steps.found.context, steps.more), mixing(all)])],
    ...(given.heads > 1 ? [join(all)] : []),
  ]);
}

/** A step in the page. @param {(call: () => void) => void} follow @param {number} number @param {Step} step */
export function section(follow, number, [name, formula, sentence, ...parts]) {
  const how = createElement("p", { className: "formula" });
  const what = createElement("p", {});
  follow(() => {
    what.replaceChildren(...prose(sentence()));
    how.replaceChildren(...maths(typeof formula === "string" ? formula : formula()));
  });
  const text = createElement("div", {}, createElement("h2", {}, createElement("span", { className: "number", textContent: number }), name), how, what);
  const data = { "data-step": name.toLowerCase() };
  return parts.length ? createElement("section", { data }, text, createElement("div", { className: "numbers" }, ...parts)) : createElement("section", { className: "plain", data }, text);
}

/* Before the scores */

/** Of a recording, whose encodings and matrices are not held. */
function ofModel({ steps: { given, size } }) {
  const whence = given.isFirst ? "The embeddings of the tokens enter the first layer." : "The layers before this one give each token its encoding.";
  return [
    ["Embed", "X = encodings of the tokens", () => whence],
    ["Project", "q = x · W_{query},  K = X · W_{key},  V = X · W_{value}",
      () => `This head computes q, K and V from X, plus its bias and rotation, if any, with ${count(size, "number")} each. ${vectors("query", given.query, given.names)}`],
  ];
}

/** Of a lesson: its words, and how they become queries, keys and values. */
function before(all) {
  const { steps: { given } } = all;
  const words = given.isSelf ? `${count(given.tokens.length, "word")}, which attend to each other.`
    : `${count(given.tokens.length, "query", "queries")} and ${count(given.keys.length, "key")}.`;
  return [
    ["Words", "", () => `${words} Whatever has a frame can be typed into: everything below is computed anew.`, setup(all)],
    ...(isProjected(given.lesson) ? projections(all) : [vectorTables(all)]),
  ];
}

const titled = (formula, ...tables) => createElement("div", {}, createElement("p", { className: "formula" }, ...maths(formula)), ...tables);

function vectorTables({ steps, grids }) {
  const { given, now } = steps;
  const [keys, values] = [grids.shown(steps.size), grids.shown(given.value[0].length)];
  return ["Vectors", "Q, K and V are given", () => "There are no weight matrices here: a table of keys and values, and the queries that look things up in it.", createElement("div", { className: "three" },
    titled("The table: K and V", grids.grid("Keys and values", ["", ...axis("k", keys.count), ...axis("v", values.count), ...(keys.more.length ? keys.more : values.more)], given.keys.map((label, j) => ({ label, cells: [...numbered(`K.${j}`, keys.count), ...numbered(`V.${j}`, values.count)] })), "tall")),
    titled("Q", grids.grid("Queries", ["", ...axis("q", keys.count)], given.tokens.map((label, i) => ({ label, cells: numbered(`Q.${i}`, keys.count), isChosen: () => i === now.query })), "tall")),
  )];
}

/** The input embeddings, and the three projections. */
function projections(all) {
  const { steps, grids, ui } = all;
  const { given, now } = steps;
  const { encodings, ofKeys, projections: matrices, lesson, isSelf } = given;
  const dims = encodings[0].length;
  const rows = (name, isApart = false) => given.tokens.map((label, i) => ({ label, cells: numbered(`${name}.${i}`, dims), isChosen: () => i === now.query, isResult: isApart }));
  const [q, k, v] = ["query", "key", "value"].map((role) => matrices[role][0].length);
  const X = isSelf ? "X" : "S";
  const xs = (role) => axis("x", matrices[role].length);
  /** A matrix as W, as the weight of a linear layer, which is its transpose, or as both; and what it makes. */
  const projection = (role, W, letter, size, result, side = []) => {
    const left = matrices[role].map((_, i) => ({ label: xs(role)[i], cells: [...side.map((name) => `${name}.${i}`), ...numbered(`${W}.${i}`, size)], side: side.length }));
    const turned = grids.grid(`The weight of the linear layer for the ${role}, which is W_${role} transposed`, ["", ...xs(role)], axis(letter, size).map((label, d) => ({ label, cells: matrices[role].map((_, i) => `${W}.${i}.${d}`) })));
    const made = `${side.length ? "q = x" : `${letter.toUpperCase()} = ${X}`}`;
    const plain = (/** @type {any[]} */ parts) => grids.grid(`W_${role}, and what it makes`, ["", ...(side.length ? ["x"] : []), ...axis(letter, size)], parts);
    const isLinear = ui.form === "linear";
    return titled(isLinear ? `${made} · weightᵀ` : `${made} · W_{${role}}`, ...(ui.form === "parameters" ? [] : [turned]), plain(isLinear ? result.map((row) => ({ ...row, isApart: false })) : [...left, ...result]));
  };
  const made = (name, labels, size) => labels.map((label, i) => ({ label, cells: numbered(`${name}.${i}`, size), isResult: true, isApart: i === 0 }));
  const forms = [["parameters", "W, a parameter"], ["linear", "weight of nn.Linear"], ["both", "both"]];
  const choice = oneOf(all.follow, "Form of the matrices", "segments", forms.map(([, text]) => createElement("button", { textContent: text })), () => forms.findIndex(([form]) => form === ui.form), (i) => { [ui.form] = forms[i]; all.rebuild(); });
  const numbers = () => `(${encodings[now.query].slice(0, 3).map((one) => decimal(one)).join(", ")}${dims > 3 ? ", …" : ""})`;
  return [
    ["Embed", lesson.positions ? "X = token embeddings + position embeddings" : "X = encodings of the tokens",
      () => (lesson.positions
        ? `The token says which word it is, the position where it stands: together ${steps.who.name} at position ${now.query} is ${numbers()}.`
        : `Each token is ${count(dims, "number")}: ${steps.who.name} is ${numbers()}. Without positions, the same words in another order give each word the same context.`),
      createElement("div", { className: "three" },
        ...(lesson.positions ? [
          titled("token", grids.grid("Token embeddings", ["", ...axis("e", dims)], rows("E"))),
          titled("+ position", grids.grid("Position embeddings", ["", ...axis("p", dims)], rows("P").map((row, i) => ({ ...row, label: String(i) })))),
        ] : []),
        titled(lesson.positions ? "= X" : "X", grids.grid("X, the input embeddings", ["", ...axis("x", dims)], rows("X", lesson.positions !== null))),
        ...(isSelf ? [] : [titled("S, the X of the second sentence", grids.grid("S, the X of the second sentence", ["", ...axis("x", ofKeys[0].length)], given.keys.map((label, j) => ({ label, cells: numbered(`S.${j}`, ofKeys[0].length) }))))]),
      ), positionsSwitch(all)],
    ["Project", "X · W, three times", () => `${vectors("query", given.query, given.names)}${given.heads > 1 ? ` Head ${given.head} has these columns of each matrix.` : ""}`, createElement("div", { className: "three" },
      projection("query", "Wq", "q", q, [{ label: () => given.tokens[now.query], cells: ui.form === "linear" ? [...numbered("q", q)] : [null, ...numbered("q", q)], isResult: true, isApart: true }], ui.form === "linear" ? [] : ["x"]),
      projection("key", "Wk", "k", k, made("K", given.keys, k)),
      projection("value", "Wv", "v", v, made("V", given.keys, v)),
    ), choice],
  ];
}

/* From the scores on */

/** Which energy compares a query with a key, and its own matrices. */
function energies({ follow, steps, grids, state, change }) {
  const { lesson } = steps.given;
  const buttons = ENERGIES.map((textContent) => createElement("button", { textContent }));
  const choice = oneOf(follow, "Energy", "segments", buttons, () => ENERGIES.indexOf(lesson.energy), (i) => change(withEnergy(state.lesson, ENERGIES[i])));
  const table = (name, title, field) => titled(title, grids.grid(title, ["", ...axis("h", lesson[field][0].length)], lesson[field].map((row, i) => ({ label: String(i + 1), cells: numbered(`${name}.${i}`, row.length) }))));
  return [createElement("div", { className: "rules" }, choice), ...(lesson.W_energy ? [createElement("div", { className: "three" }, table("We", "W of the energy", "W_energy"), ...(lesson.v_energy ? [table("ve", "v of the energy", "v_energy")] : []))] : [])];
}

function maskFormula({ bias, isBiasScaled, lesson }) {
  if (bias === null) return "masked = scaled, −∞ where hidden";
  if (!lesson) return "masked = scaled + position bias, −∞ where hidden";
  return isBiasScaled ? "masked = (scores + M) × scale, −∞ where hidden" : "masked = scaled + M, −∞ where hidden";
}

/** Whether it matters that M is added before or after the scale. */
function order({ isBiasScaled }, { scale }) {
  return isBiasScaled
    ? ` M is added before the scale, which multiplies it by ${factor(scale)} too. Where it is −∞ that changes nothing; a finite number counts for less.`
    : " M is added after the scale, so that it counts in full. Where it is −∞ the order changes nothing.";
}

/** M, row by row, and when it is added. */
function byHand({ follow, steps, grids, state, change }) {
  const { given, now } = steps;
  const buttons = ["QKᵀ/√d + M", "(QKᵀ + M)/√d"].map((textContent) => createElement("button", { textContent }));
  return [
    createElement("div", { className: "rules" }, oneOf(follow, "When M is added", "segments", buttons, () => Number(given.lesson.mask_before_scale), (i) => change({ ...state.lesson, mask_before_scale: i === 1 }))),
    titled("M: a number, or −∞ (type -inf, or press the space bar)", grids.grid("M, the mask", ["", ...given.keys], given.tokens.map((label, i) => ({ label, cells: given.keys.map((_, j) => `M.${i}.${j}`), isChosen: () => i === now.query })))),
  ];
}

function mixing({ steps, grids }) {
  const { given } = steps;
  const { count: shown, more } = grids.shown(given.value[0].length);
  const rest = given.restValue === null ? Array(shown).fill(null) : numbered("rest-V", shown);
  return grids.grid("The weights beside the values, and the context below", ["", "weight", ...axis("v", shown), ...more], [
    ...given.keys.map((label, j) => ({ label, cells: [`weight.${j}`, ...numbered(`V.${j}`, shown)], side: 1 })),
    ...(given.rest === null ? [] : [{ label: "all other tokens", cells: ["rest-weight", ...rest], side: 1 }]),
    { label: "context", cells: [null, ...numbered("context", shown)], isResult: true, isApart: true },
  ], "mixing");
}

/** The heads side by side, and W_output. */
function join({ steps, grids }) {
  const { given } = steps;
  const { W_output: W } = given.lesson;
  const size = given.value[0].length;
  const label = (i) => `head ${Math.floor(i / size)}, ${subscript((i % size) + 1)}`;
  const sentence = () => `The contexts of ${given.heads} heads stand side by side: ${steps.concat.length} numbers for ${steps.who.name}.${W ? ` W_output mixes them into one vector: (${steps.output.slice(0, 3).map((one) => decimal(one)).join(", ")}${steps.output.length > 3 ? ", …" : ""}).` : ""}`;
  const count = size * given.heads;
  const table = W
    ? grids.grid("The joined heads beside W_output, and the output below", ["", "concat", ...axis("o", W[0].length)], [
      ...Array.from({ length: count }, (_, i) => ({ label: label(i), cells: [`cat.${i}`, ...numbered(`Wo.${i}`, W[0].length)], side: 1 })),
      { label: "output", cells: [null, ...numbered("out", W[0].length)], isResult: true, isApart: true },
    ])
    : grids.grid("The joined heads", ["", ...Array.from({ length: count }, (_, i) => label(i))], [{ label: "concat", cells: numbered("cat", count), isResult: true }]);
  return ["Heads", W ? "output = concat(head_0, head_1, …) · W_{output}" : "concat(head_0, head_1, …)", sentence, table];
}

/** Text in which _ and ^ set what follows lower or higher: a word below, one letter above, or {several}. */
export function maths(text) {
  const parts = text.split(/([_^]\{[^}]*\}|_\p{L}+|_\d|\^[\p{L}\d])/u);
  return parts.filter(Boolean).map((part) => {
    if (!/^[_^]./.test(part)) return part;
    const inner = part.slice(1).replace(/^\{|\}$/g, "");
    return createElement(part[0] === "_" ? "sub" : "sup", {}, inner);
  });
}

/** A sentence, in which names like W_query and d_k are set so and commands as code; a word of the user's is as it was typed. @param {string} text */
export function prose(text) {
  const said = text.replace(/(\d)%/g, "$1\u00a0%").replace(/(?<=^|[\s(])-(?=\d)/g, "−");
  return said.split(/((?<![\p{L}\p{N}_])[Wd]_\p{L}+|`pellucid [^`]*`)/u).filter(Boolean)
    .flatMap((part) => (part[0] === "`" ? [createElement("code", { textContent: part.slice(1, -1) })] : /^[Wd]_/.test(part) ? maths(part) : [part]));
}
