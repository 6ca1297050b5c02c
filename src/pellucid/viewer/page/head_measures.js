// The measures of a head and the names of its behaviours, as pellucid.lens.heads gives them.
import { percent } from "./colours.js";

/**
 * @typedef {{layer_index: number, head: number, name: string, label: string, role: string} & Record<string, any>} HeadRow
 *   the measures of one head
 */

/** By column of the table: a name, and what it measures. @type {Record<string, [string, string]>} */
export const MEASURES = {
  entropy: ["entropy", "how spread out the attention is, in nats"],
  distance: ["distance", "mean distance to the attended tokens, in positions"],
  first: ["first token", "share of attention on the first token"],
  itself: ["itself", "share of attention on the token itself"],
  previous: ["previous token", "share of attention on the token before"],
  next: ["next token", "share of attention on the token after"],
  duplicates: ["duplicates", "share of attention on other occurrences of the same token"],
  induction: ["induction", "share of attention on what followed an earlier occurrence of the same token"],
  punctuation: ["punctuation", "share of attention on punctuation and line breaks"],
  special: ["special tokens", "share of attention on special tokens such as [SEP]"],
};
/** One more, where the model is at hand: see head_effects.js. @type {[string, string]} */
export const EFFECT = ["effect", "how much the answer changes when the head is knocked out"];
const UNBOUNDED = new Set(["entropy", "distance", "effect"]); // the others are shares
const CLARK = "Clark et al. 2019, What Does BERT Look At?";

/** By role: an explanation and its source. @type {Record<string, [string, string]>} */
export const ROLES = {
  "previous token": ["Each token attends to the token just before it. Induction heads build on this: it records what each token came after.", "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"],
  "next token": ["Each token attends to the token just after it.", CLARK],
  itself: ["Each token attends mostly to itself.", CLARK],
  induction: ["Each token finds an earlier occurrence of itself and attends to what came next. This lets a model continue a sequence that it has seen before.", "Olsson et al. 2022, In-context Learning and Induction Heads"],
  duplicates: ["Each token attends to other occurrences of the same token.", "Wang et al. 2023, Interpretability in the Wild"],
  "first token": ["Most attention goes to the first token, whatever it is: an attention sink, where a head puts its attention when nothing else is relevant.", "Xiao et al. 2024, Efficient Streaming Language Models with Attention Sinks"],
  punctuation: ["Most attention goes to punctuation and line breaks. They may serve as attention sinks too.", CLARK],
  "special tokens": ["Most attention goes to special tokens, such as [SEP]: in BERT, what a head does that finds nothing to act on.", CLARK],
  broad: ["Attention is spread almost evenly over all visible tokens, so the head computes roughly their mean.", CLARK],
};
const NO_ROLE = /** @type {[string, string]} */ (["No named behaviour accounts for 40 % of this head's attention.", ""]);
export const NAMING_RULE = "A head is named after a behaviour that accounts for at least 40 % of its attention, or “broad” if its entropy is at least 90 % of the maximum.";

/** @param {string} role */
export function roleText(role) {
  return ROLES[role] ?? NO_ROLE;
}

/** The measures of heads that there are for some recordings. @param {About} about */
export function measuresOf({ recordings }) {
  return recordings.some((one) => one.can_run) ? { ...MEASURES, effect: EFFECT } : MEASURES;
}

/** A measure as people read it. @param {string} name @param {number | null} [value] none where it is not defined, or not known yet */
export function measureText(name, value) {
  if (value === null || value === undefined) return "–";
  if (name === "effect") return Number(value.toPrecision(2)).toString();
  return UNBOUNDED.has(name) ? value.toFixed(2) : percent(Math.min(1, value));
}

/** How long the bar of a measure is, from 0 to 1: entropy and distance relative to the largest of all heads. @param {string} name @param {HeadRow} row @param {Iterable<HeadRow>} all */
export function barLength(name, row, all) {
  const largest = UNBOUNDED.has(name) ? [...all].reduce((most, one) => Math.max(most, one[name] ?? 0), 0) || 1 : 1;
  return Math.min(1, (row[name] ?? 0) / largest);
}
