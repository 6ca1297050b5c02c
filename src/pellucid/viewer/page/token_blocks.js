// The text of a generation as blocks of tokens (source, prompt, output), shaded by attention.
import { percent, shade } from "./colours.js";
import { createElement } from "./elements.js";

const SHOWN = 2000; // tokens on the page after the new one, and twice as many before it

/** Tokens with a title. */
class TokenBlock {
  #scale = createElement("small", { title: "The weight with the strongest shade" });
  text = createElement("p");

  /** @param {string} name @param {string} kind a class of the style sheet */
  constructor(name, kind) {
    this.element = createElement("section", { className: `block ${kind}` }, createElement("h2", {}, name, this.#scale), this.text);
  }

  get tokens() {
    return /** @type {HTMLElement[]} */ ([...this.text.children]);
  }

  get scale() {
    return this.#scale.textContent ?? "";
  }

  set scale(text) {
    this.#scale.textContent = text;
  }

  /** @param {string[]} tokens @param {number} first position of the first @param {"own" | "across"} side which weights they have */
  fill(tokens, first, side) {
    this.text.replaceChildren(...tokens.flatMap((token, i) => {
      const rest = token.replace(/^ +/, ""); // spaces between words are not shaded
      const space = token.slice(0, token.length - rest.length);
      const text = rest.replace(/^\n+|\n+$/g, (breaks) => "⏎".repeat(breaks.length)) || (token ? "␣" : "·");
      return [space, createElement("span", { textContent: text, data: { "data-at": first + i, "data-of": side } }), token.includes("\n") ? "\n" : ""];
    }));
  }

  /**
   * Shade each token by its weight.
   * @param {Float32Array | null} weights of each position
   * @param {number} strongest the weight with the strongest shade
   * @param {number} last position that has a weight
   * @param {Uint32Array} table colours
   */
  paint(weights, strongest, last, table) {
    for (const token of this.tokens) {
      const at = Number(token.dataset.at);
      const value = weights && at <= last ? weights[at] : 0;
      const { paper, ink } = shade(value / strongest, table);
      const isPlain = token.classList.contains("new") || !(value > 0);
      token.style.background = isPlain ? "" : paper;
      token.style.color = isPlain ? "" : ink;
      token.title = weights ? percent(value) : "";
    }
  }
}

/** The text of a generation, with its source if it is a translation. */
export class GeneratedText {
  #tokens;
  #prompt; // tokens of it
  /** @type {TokenBlock | null} */
  #source;
  #promptBlock;
  #outputBlock;
  #window = { first: -1, end: -1 }; // positions that are on the page

  /**
   * @param {string[]} tokens
   * @param {number} prompt tokens that were given
   * @param {string[] | null} source tokens of the source of a translation
   * @param {boolean} isKnown whether it is known what was given and what was generated
   * @param {string} note
   */
  constructor(tokens, prompt, source, isKnown, note) {
    this.#tokens = tokens;
    this.#prompt = prompt;
    this.#source = source && new TokenBlock("Source", "source");
    this.#promptBlock = new TokenBlock(isKnown ? (source ? "Start" : "Prompt") : "First", "prompt");
    this.#outputBlock = new TokenBlock(isKnown ? "Output" : "Text", "output");
    if (source) this.#source?.fill(source, 0, "across");
    this.element = createElement("div", { className: "written", tabIndex: 0, data: { role: "region", "aria-label": "The text" } },
      ...(this.#source ? [this.#source.element] : []), this.#promptBlock.element, this.#outputBlock.element, createElement("p", { className: "note", textContent: note }));
  }

  /** Put the tokens around a new one on the page. @param {number} at its position */
  show(at) {
    const first = at < 2 * SHOWN ? 0 : Math.floor(at / SHOWN - 1) * SHOWN;
    const end = Math.min(this.#tokens.length, first + 3 * SHOWN);
    if (first !== this.#window.first || end !== this.#window.end) {
      this.#window = { first, end };
      const middle = Math.max(first, this.#prompt);
      this.#promptBlock.fill(this.#tokens.slice(first, middle), first, "own");
      this.#promptBlock.element.hidden = first >= this.#prompt;
      this.#outputBlock.fill(this.#tokens.slice(middle, end), middle, "own");
    }
    for (const token of this.#outputBlock.tokens) {
      token.classList.toggle("new", Number(token.dataset.at) === at);
      token.classList.toggle("later", Number(token.dataset.at) > at);
    }
    this.#outputBlock.text.querySelector(".new")?.scrollIntoView({ block: "nearest" });
  }

  /**
   * @param {{own: Float32Array, across: Float32Array | null} | null} weights of the text and of its source
   * @param {number} query position of the token that attends
   * @param {Uint32Array} table colours
   */
  paint(weights, query, table) {
    const own = weights?.own ?? null;
    // The first token is often an attention sink; the scale is that of the others.
    const strongest = largest(own?.subarray(1)) || own?.[0] || 1;
    for (const block of [this.#promptBlock, this.#outputBlock]) {
      block.scale = own && block.tokens.length ? `strongest: ${own[0] > strongest ? "≥ " : ""}${percent(strongest)}` : "";
      block.paint(own, strongest, query, table);
    }
    if (!this.#promptBlock.scale) this.#promptBlock.scale = this.#outputBlock.scale;
    if (!this.#promptBlock.element.hidden) this.#outputBlock.scale = "";
    if (!this.#source) return;
    const across = weights?.across ?? null;
    const most = largest(across) || 1;
    this.#source.scale = across ? `strongest: ${percent(most)}` : "";
    this.#source.paint(across, most, Infinity, table);
  }
}

/** @param {Float32Array | null} [values] */
function largest(values) {
  return values?.reduce((most, value) => Math.max(most, value), 0) ?? 0;
}
