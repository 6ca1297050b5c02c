// The button of one head in the overview: its thumbnail, and its role or measure below.
import { picture } from "./colours.js";
import { context2d, createElement, truncate } from "./elements.js";
import { EFFECT, MEASURES, measureText, roleText } from "./head_measures.js";

/** @type {Record<string, string>} */
export const STACKS = { e: "encoder", d: "decoder", x: "cross-attention" };

export class HeadCard {
  /** @type {import("./head_measures.js").HeadRow | undefined} */
  row; // its measures, once they are known
  hasThumbnail = false;
  canvas = createElement("canvas");
  #values = new Float32Array(0);
  #note = createElement("span", { className: "note" });

  /** @param {About} about @param {number} layerIndex @param {number} head */
  constructor({ layers, recordings }, layerIndex, head) {
    this.layerIndex = layerIndex;
    this.layer = layers[layerIndex];
    this.head = head;
    /** The title of the recording, where there are several. */
    this.recording = recordings.length > 1 ? recordings[this.layer.recording].title : "";
    this.element = createElement("button", { type: "button", className: "head" }, this.canvas, this.#note);
  }

  /**
   * What the card is labelled with.
   * @param {string} sort "layer", or the measure that heads are sorted by
   * @param {string} tint a measure whose colour it has, if any
   * @param {(row: import("./head_measures.js").HeadRow) => {paper: string, ink: string}} shadeOf the colour
   */
  label(sort, tint = "", shadeOf = () => ({ paper: "", ink: "" })) {
    const { layer, row, head, recording, element } = this;
    const shown = tint || (sort === "layer" ? "" : sort);
    const value = row && shown ? measureText(shown, row[shown]) : "";
    const { paper, ink } = row && tint ? shadeOf(row) : { paper: "", ink: "" };
    Object.assign(this.#note.style, { background: paper, color: ink });
    if (sort === "layer") this.#note.textContent = row ? value || row.role : "";
    else {
      const name = createElement("b", { textContent: `${layer.stack}${layer.number}.${head}` });
      name.style.color = ink; // as what stands beside it on the tint
      this.#note.replaceChildren(name, ` ${value}`);
    }
    const parts = [`layer ${layer.stack}${layer.number}, head ${head}`, STACKS[layer.stack], recording && truncate(recording, 40), row?.role, value && `${(MEASURES[shown] ?? EFFECT)[0]} ${value}`];
    element.setAttribute("aria-label", parts.filter(Boolean).join(", "));
    if (row) element.setAttribute("aria-description", roleText(row.role)[0]);
  }

  /** @param {Float32Array} weights (height, width) */
  setThumbnail(weights, /** @type {number} */ height, /** @type {number} */ width) {
    const most = weights.reduce((top, value) => Math.max(top, value), 0) || 1;
    // The square root shows weak weights, and keeps strong ones apart.
    this.#values = Float32Array.from(weights, (value) => Math.sqrt(value / most));
    Object.assign(this.canvas, { width, height });
    this.hasThumbnail = true;
  }

  /** @param {Uint32Array} table colours */
  paint(table) {
    if (!this.hasThumbnail) return;
    const { width, height } = this.canvas;
    context2d(this.canvas).putImageData(picture(this.#values, width, height, 1, false, table), 0, 0);
  }
}

/** The card that a key leads to. @param {HTMLElement[]} cards @param {string} key @param {HTMLElement} from */
export function neighbour(cards, key, from) {
  const at = cards.indexOf(from);
  if (at < 0) return undefined;
  /** @type {Record<string, HTMLElement | undefined>} */
  const inRow = { ArrowLeft: cards[at - 1], ArrowRight: cards[at + 1], Home: cards[0], End: cards.at(-1) };
  if (key in inRow) return inRow[key];
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  const direction = key === "ArrowUp" ? -1 : 1;
  const here = from.getBoundingClientRect();
  let best;
  let nearest = Infinity;
  for (const card of cards) {
    const there = card.getBoundingClientRect();
    const down = (there.top - here.top) * direction;
    const distance = down > here.height / 2 ? down * 1e4 + Math.abs(there.left - here.left) : Infinity;
    if (distance < nearest) [nearest, best] = [distance, card];
  }
  return best;
}
