// The steps of a lesson as parts of the page: each has a name, a formula, a sentence, its tables, and what can be changed.
import { subscript } from "./derivations.js";
import { createElement } from "./elements.js";
import { count, decimal, vectors } from "./sentences.js";
import { maskChoice, scaleSlider, temperatureSlider, why } from "./sliders.js";

const axis = (letter, n) => Array.from({ length: n }, (_, i) => `${letter}${subscript(i + 1)}`);
const numbered = (name, n) => Array.from({ length: n }, (_, i) => `${name}.${i}`);

/** @typedef {[string, string | (() => string), () => string, ...Node[]]} Step name, formula, sentence, and tables or controls */

/** @param {{steps: import("./steps.js").Steps, grids: import("./grids.js").Grids, follow: Function, changed: () => void, example: any}} lesson */
export function sections(lesson) {
  return stepsOf(lesson).map((part, i) => section(lesson.follow, i + 1, part));
}

/** Each step: its name, its formula, what it does here, and its tables and sliders. @returns {Step[]} */
function stepsOf(all) {
  const { steps, grids, example } = all;
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
    ...(given.bias === null ? [] : [{ label: "bias", cells: [null, ...ofKeys("bias")] }]),
    { label: "masked", cells: [null, ...ofKeys("masked"), ...others("masked")], isResult: true },
  ], "across");
  const softmax = grids.grid("Exponentials and weights", [...across, ...steps.others.map((kind) => names[kind]), "sum"], [
    { label: "exp", cells: [null, ...ofKeys("exp"), ...others("exp"), "sum"] },
    { label: "weight", cells: [null, ...ofKeys("weight"), ...others("weight"), "all"], isResult: true },
  ], "across");
  const attention = () => {
    const notes = example?.name === "poem" && steps.who.own === 0 ? ` The word "write" is ${(100 * steps.found.weights[0]).toFixed(0)} % similar to itself.` : "";
    const part = given.rest !== null && !steps.hasRest ? ` With the sliders moved, only the ${count(given.keys.length, "token")} shown here take part.` : "";
    return steps.sentences.softmax(steps.found.weights, steps.more) + notes + part;
  };
  return /** @type {Step[]} */ ([
    ...(given.encodings ? projections(all) : [
      ["Embed", example ? "" : "X = encodings of the tokens", () => (example ? "Each word is a direction." : "The layers below give each token its encoding.")],
      ["Project", example ? "" : "q = x · W_{query},  K = X · W_{key},  V = X · W_{value}", () => (example
        ? `There are no weight matrices here: query, keys and values are given, with ${count(steps.size, "number")} each. `
        : `This head computes q, K and V from X, plus its bias and rotation, if any, with ${count(steps.size, "number")} each. ${vectors("query", given.query, given.names)}`)],
    ]),
    ["Score", "scores = q · Kᵀ", () => steps.sentences.score(steps.found.scores), score],
    ["Scale", () => `scaled = scores × ${decimal(now.scale, 4)}`, () => steps.sentences.scale(steps.found.scores, now.scale, steps.size), scale, createElement("div", { className: "play" }, scaleSlider(all), why(all))],
    ...cap,
    ["Mask", given.bias === null ? "masked = scaled, −∞ where hidden" : "masked = scaled + position bias, −∞ where hidden", () => steps.sentences.mask(steps.found.masked), mask, maskChoice(all)],
    ["Softmax", () => (now.temperature === 1 ? "weight = e^{masked} / Σ e^{masked}" : "weight = e^{masked / τ} / Σ e^{masked / τ}"), attention, softmax, temperatureSlider(all)],
    ["Mix", "context = weights · V", ...(V === null ? [() => "The values were not recorded. watch(model, values=True) records them."] : [() => steps.sentences.mix(steps.found.weights, steps.found.context, steps.more), mixing(all)])],
  ]);
}

/** A step in the page. */
function section(follow, number, [name, formula, sentence, ...parts]) {
  const how = createElement("p", { className: "formula" });
  const what = createElement("p", {});
  follow(() => {
    what.textContent = sentence();
    how.replaceChildren(...maths(typeof formula === "string" ? formula : formula()));
  });
  const text = createElement("div", {}, createElement("h2", {}, createElement("span", { className: "number", textContent: number }), name), how, what);
  return parts.length ? createElement("section", {}, text, createElement("div", { className: "numbers" }, ...parts)) : createElement("section", { className: "plain" }, text);
}

/** The steps before the scores, where encodings and matrices are known. */
function projections({ steps, grids }) {
  const { given, now } = steps;
  const { encodings, projections: matrices } = given;
  const dims = encodings[0].length;
  const encoding = () => `${encodings[now.query].slice(0, 3).map((one) => decimal(one)).join(", ")}${dims > 3 ? ", …" : ""}`;
  const titled = (formula, table) => createElement("div", {}, createElement("p", { className: "formula" }, ...maths(formula)), table);
  const matrix = (role, W, side = []) => matrices[role].map((row, i) => ({ label: `x${subscript(i + 1)}`, cells: [...side.map((name) => `${name}.${i}`), ...numbered(`${W}.${i}`, row.length)], side: side.length }));
  const ofTokens = (name, size) => given.tokens.map((label, i) => ({ label, cells: numbered(`${name}.${i}`, size), isResult: true, isApart: i === 0 }));
  const [q, k, v] = ["query", "key", "value"].map((role) => matrices[role][0].length);
  return [
    ["Embed", "X = encodings of the tokens", () => `Each token is ${count(dims, "number")}: ${steps.who.name} is (${encoding()}).`,
      grids.grid("X, the encodings", ["", ...axis("x", dims)], given.tokens.map((label, i) => ({ label, cells: numbered(`X.${i}`, dims), isChosen: () => i === now.query })))],
    ["Project", "X · W, three times", () => vectors("query", given.query, given.names), createElement("div", { className: "three" },
      titled("q = x · W_{query}", grids.grid("W_query, and the query below", ["", "x", ...axis("q", q)], [
        ...matrix("query", "Wq", ["x"]),
        { label: () => given.tokens[now.query], cells: [null, ...numbered("q", q)], isResult: true, isApart: true },
      ])),
      titled("K = X · W_{key}", grids.grid("W_key, and the keys below", ["", ...axis("k", k)], [...matrix("key", "Wk"), ...ofTokens("K", k)])),
      titled("V = X · W_{value}", grids.grid("W_value, and the values below", ["", ...axis("v", v)], [...matrix("value", "Wv"), ...ofTokens("V", v)])),
    )],
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

/** Text in which _ and ^ set what follows lower or higher: one letter, or {several}. */
function maths(text) {
  const parts = text.split(/([_^](?:\{[^}]*\}|[\p{L}\d]))/u);
  return parts.filter(Boolean).map((part) => {
    if (!/^[_^]./.test(part)) return part;
    const inner = part.slice(1).replace(/^\{|\}$/g, "");
    return createElement(part[0] === "_" ? "sub" : "sup", {}, inner);
  });
}
