// The panel beside a generation: the new token, its alternatives, and the tokens attended to most.
import { percent } from "./colours.js";
import { createElement, truncate } from "./elements.js";
import { strongest } from "./strongest.js";

const MOST_NAMED = 5; // tokens in each list
const LETTERS = 26; // of a token

/** @typedef {{word: string, probability: number, is_written: boolean}} Alternative */

/** @param {string} token */
export function shortToken(token) {
  return truncate(token, LETTERS);
}

/** The tokens with the largest weights, largest first. @param {Float32Array} weights @param {string[]} tokens */
export function strongestTokens(weights, tokens) {
  return strongest(weights, MOST_NAMED).map((at) => ({ word: `${shortToken(tokens[at])} (${at})`, quoted: `“${shortToken(tokens[at])}” (${at})`, value: weights[at] }));
}

/** @param {string} token @param {number} at its position */
export function tokenTitle(token, at) {
  return [createElement("h2", { textContent: `Token ${at}` }), createElement("p", { className: "token", textContent: shortToken(token) })];
}

/** @param {Alternative[]} alternatives with the token that was generated */
export function alternativesTable(alternatives) {
  return [
    createElement("h2", { textContent: "Most likely tokens" }),
    bars(alternatives.map(({ word, probability, is_written: isChosen }) => ({ word: `${isChosen ? "● " : ""}${shortToken(word)}`, value: probability, isChosen }))),
  ];
}

/** @param {string} title @param {{word: string, value: number}[]} tokens */
export function attentionTable(title, tokens) {
  return [createElement("h2", { textContent: title }), bars(tokens)];
}

/** @param {{word: string, value: number, isChosen?: boolean}[]} rows shares */
function bars(rows) {
  return createElement("table", {}, createElement("tbody", {}, ...rows.map(({ word, value, isChosen }) => {
    const bar = createElement("span", { className: "bar" });
    bar.style.width = `${100 * value}%`;
    return createElement("tr", { className: isChosen ? "chosen" : "" },
      createElement("th", { scope: "row", textContent: word }), createElement("td", {}, bar), createElement("td", { textContent: percent(value) }));
  })));
}
