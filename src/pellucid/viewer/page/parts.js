// Small pieces of pages. Text is only ever text.
import { apart } from "./sentences.js";

const SIGNS = { "\n": "⏎", "\t": "⇥" };

/** An element with properties and children. */
export function made(name, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(data ?? {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A choice with its name. @param {[string, string][]} options values and what they are called */
export function choice(name, options, value, change) {
  const select = made("select", {}, ...options.map(([one, text]) => made("option", { value: one, textContent: text })));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return made("label", {}, `${name} `, select);
}

export function button(text, title, call) {
  const element = made("button", { type: "button", textContent: text, title });
  element.setAttribute("aria-label", title);
  element.addEventListener("click", call);
  return element;
}

/**
 * A choice among the heads of recordings, which are named where there are several.
 * @param {{title: string}[]} recordings as in page.about
 */
export function headChoice(sheets, sheet, head, change, { name = "Head", recordings = [] } = {}) {
  const of = ({ recording }) => (recordings.length > 1 ? `${short(recordings[recording].title, 28)}: ` : "");
  const options = sheets.flatMap((one, i) =>
    Array.from({ length: one.heads }, (_, j) => [`${i}.${j}`, `${of(one)}layer ${one.stack}${one.layer}, head ${j}`]));
  return choice(name, options, `${sheet}.${head}`, (value) => change(...value.split(".").map(Number)));
}

/** A choice among the texts of a batch; nothing where there is only one. */
export function itemChoice(sheets, sheet, item, change) {
  const { items } = sheets[sheet];
  if (items < 2) return "";
  const options = Array.from({ length: items }, (_, i) => [String(i), `${i + 1} of ${items}`]);
  return choice("Text", options, String(item), (value) => change(Number(value)));
}

/** A word, or the beginning of it; what cannot be seen is a sign that can. */
export function short(word, most = 12) {
  const letters = [...(word.trim() || SIGNS[word[0]] || "␣")];
  return apart(letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join(""));
}
