// Helpers that create elements: plain elements, dropdowns, buttons. Text is never parsed as HTML.
import { isolate } from "./sentences.js";

const SYMBOLS = /** @type {Record<string, string>} */ ({ "\n": "⏎", "\t": "⇥" });

/**
 * An element with properties, attributes (under `data`) and children.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function createElement(name, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(data ?? {})) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/**
 * A labelled dropdown.
 * @param {string} name
 * @param {[string, string][]} options values and labels
 * @param {string} value
 * @param {(value: string) => void} change
 */
export function dropdown(name, options, value, change) {
  const select = createElement("select", {}, ...options.map(([one, text]) => createElement("option", { value: one, textContent: text })));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return createElement("label", {}, `${name} `, select);
}

/** @param {string} text @param {string} title @param {(event: MouseEvent) => void} call */
export function button(text, title, call) {
  const element = createElement("button", { type: "button", textContent: text, title });
  element.setAttribute("aria-label", title);
  element.addEventListener("click", call);
  return element;
}

/**
 * A dropdown of all heads; recordings are named where there are several.
 * @param {About} about
 * @param {HeadPlace} place
 * @param {(layer: number, head: number) => void} change
 */
export function headDropdown({ layers, recordings }, { layer, head }, change, name = "Head") {
  /** @param {Layer} one */
  const prefix = ({ recording }) => (recordings.length > 1 ? `${recordingName(recordings, recording, 28)}: ` : "");
  const options = layers.flatMap((one, i) => Array.from({ length: one.heads }, (_, j) =>
    /** @type {[string, string]} */ ([`${i}.${j}`, `${prefix(one)}layer ${one.stack}${one.number}, head ${j}`])));
  return dropdown(name, options, `${layer}.${head}`, (value) => {
    const [newLayer, newHead] = value.split(".").map(Number);
    change(newLayer, newHead);
  });
}

/**
 * A dropdown of the texts of a batch; nothing where there is only one.
 * @param {Layer[]} layers @param {number} layer @param {number} item @param {(item: number) => void} change
 */
export function itemDropdown(layers, layer, item, change) {
  const { items } = layers[layer];
  if (items < 2) return "";
  const options = Array.from({ length: items }, (_, i) => /** @type {[string, string]} */ ([String(i), `${i + 1} of ${items}`]));
  return dropdown("Text", options, String(item), (value) => change(Number(value)));
}

/** What to do, for whoever has a pointer and keys, or who touches. @param {string} pointed @param {string} touched */
export function hint(pointed, touched) {
  return matchMedia("(hover: hover)").matches ? pointed : touched;
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** The letters of a text as people count them: with their accents, and emoji whole. @param {string} text */
export function graphemes(text) {
  return /^[\x20-\x7e]*$/.test(text) ? [...text] : Array.from(segmenter.segment(text), ({ segment }) => segment);
}

/** A word, or its first letters; whitespace is shown as a symbol, and what goes on with the letter before as a point. @param {string} word */
export function truncate(word, most = 12) {
  const letters = graphemes(word.trim() || SYMBOLS[word[0]] || (word ? "␣" : "·"));
  return isolate(letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join(""));
}

/** The title of a recording, cut; with its number where another begins alike. @param {RecordingInfo[]} recordings @param {number} at @param {number} most letters */
export function recordingName(recordings, at, most) {
  const names = recordings.map(({ title }) => truncate(title, most));
  return names.filter((name) => name === names[at]).length > 1 ? `${at + 1}. ${names[at]}` : names[at];
}

/** The drawing context of a canvas. @param {HTMLCanvasElement} canvas */
export function context2d(canvas) {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the browser cannot draw");
  return context;
}
