// The Generation view: step by step, each new token, what the model attended to, and what else was likely.
import { percent } from "./colours.js";
import { createElement, dropdown, itemDropdown, truncate } from "./elements.js";
import { Player } from "./player.js";
import { StepAttention } from "./step_attention.js";
import { alternativesTable, attentionTable, shortToken, strongestTokens, tokenTitle } from "./step_panel.js";
import { GeneratedText } from "./token_blocks.js";
import { loadTokens } from "./tokens.js";
import { integerParam } from "./url_state.js";

const UNKNOWN = "It is not known which part of this text was given and which was generated, so it is shown as if only the first token had been given. "
  + "To watch a model generate, run pellucid view with --new-tokens 40.";

/** @typedef {import("./step_attention.js").IndexedLayer} IndexedLayer */
/** @typedef {import("./step_panel.js").Alternative} Alternative */

/**
 * @typedef {object} Generated a text of a recording
 * @property {number} recording
 * @property {number[]} recordings those with generated text
 * @property {number} item
 * @property {IndexedLayer[]} layers causal self-attention
 * @property {IndexedLayer[]} crossLayers
 * @property {boolean} isKnown whether it is known what was given and what was generated
 * @property {number} prompt tokens that were given
 * @property {string[]} tokens
 * @property {string[]} sourceTokens of a translation
 * @property {Alternative[][]} steps
 * @property {string} note
 */

/** @param {Page} page */
export async function generation(page) {
  const { about, params } = page;
  const recordings = [...about.recordings.keys()].filter((i) => about.layers.some((layer) => layer.is_causal && layer.recording === i));
  if (!recordings.length) {
    showNothing(page);
    return;
  }
  const layer = params.has("layer") ? integerParam(params, "layer", about.layers.length - 1) : null;
  const wanted = layer === null ? integerParam(params, "recording", about.recordings.length - 1) : about.layers[layer].recording;
  const generated = await load(page, recordings, recordings.includes(wanted) ? wanted : recordings[0]);
  if (generated.tokens.length <= generated.prompt) {
    page.view.append(createElement("p", { className: "nothing", textContent: "There is only one token, and nothing after it." }));
    return;
  }
  const view = new GenerationView(page, generated, generated.layers.find(({ index }) => index === layer) ?? null);
  await view.start();
}

/** @param {Page} page @param {number[]} recordings @param {number} recording @returns {Promise<Generated>} */
async function load({ about, params, source, signal }, recordings, recording) {
  const own = about.layers.map((layer, index) => ({ ...layer, index })).filter((layer) => layer.recording === recording);
  const layers = own.filter((layer) => layer.is_causal);
  const crossLayers = own.filter((layer) => layer.is_cross);
  const item = integerParam(params, "item", layers[0].items - 1);
  const written = await source.json(`written/${recording}`, signal);
  const isKnown = written.prompt !== null && item === 0;
  return {
    recording, recordings, item, layers, crossLayers, isKnown,
    prompt: isKnown ? written.prompt : 1,
    tokens: isKnown ? written.words : await loadTokens(source, layers[0].index, item, "keys", layers[0].queries),
    sourceTokens: crossLayers.length ? await loadTokens(source, crossLayers[0].index, item, "keys", crossLayers[0].keys) : [],
    steps: isKnown ? written.steps : [],
    note: isKnown ? written.how : UNKNOWN,
  };
}

/** @param {Page} page */
function showNothing({ about, view, setStatus }) {
  const models = [...new Set(about.recordings.map(({ model }) => model))].join(" and ");
  view.append(createElement("div", { className: "nothing" },
    createElement("p", { textContent: `There is no generated text here: in ${models}, tokens also attend to later tokens, so none is predicted from those before it. To watch a model generate, run` }),
    createElement("code", { textContent: 'pellucid view "In the beginning" --new-tokens 40' }),
    createElement("p", { textContent: "or choose another generative model with --model." })));
  setStatus("There is no generated text here");
}

class GenerationView {
  #page;
  #generated;
  /** @type {IndexedLayer | null} */
  #layer; // all if null
  /** @type {number | "mean"} */
  #head = "mean";
  #step;
  #last; // the number of the last step
  #request = 0; // of weights; late answers are not shown
  /** @type {{own: Float32Array, across: Float32Array | null} | null} */
  #weights = null;
  #attention;
  #player;
  #text;
  #panel = createElement("div", { className: "step", tabIndex: 0, data: { role: "region", "aria-label": "This step" } });

  /** @param {Page} page @param {Generated} generated @param {IndexedLayer | null} layer */
  constructor(page, generated, layer) {
    const { params, signal } = page;
    const { prompt, tokens, sourceTokens, crossLayers, isKnown, note } = generated;
    this.#page = page;
    this.#generated = generated;
    this.#layer = layer;
    if (layer && params.has("head") && params.get("head") !== "mean") this.#head = integerParam(params, "head", layer.heads - 1);
    this.#last = tokens.length - prompt - 1;
    const atToken = Math.max(0, Math.min(this.#last, integerParam(params, "token", tokens.length) + 1 - prompt));
    this.#step = integerParam(params, "step", this.#last, params.has("token") ? atToken : this.#last);
    this.#attention = new StepAttention(page, generated.item, prompt - 1);
    this.#player = new Player(this.#last, (step) => this.#show(step));
    this.#text = new GeneratedText(tokens, prompt, crossLayers.length ? sourceTokens : null, isKnown, note);
    page.view.append(createElement("div", { className: "generation" }, this.#player.element, this.#text.element, this.#panel));
    signal.addEventListener("abort", () => this.#player.stop());
    page.theme.onChange(() => this.#paint());
    page.setExport({ csv: () => this.#csv() });
    this.#addControls();
    this.#listen();
  }

  start() {
    return this.#show(this.#step);
  }

  /** The position of the new token. */
  get #at() {
    return this.#generated.prompt + this.#step;
  }

  /** The cross-attention that belongs to a layer. @param {IndexedLayer} layer */
  #crossLayer(layer) {
    const { layers, crossLayers } = this.#generated;
    return crossLayers.find(({ number }) => number === layer.number) ?? crossLayers[layers.indexOf(layer)] ?? crossLayers[0];
  }

  #addControls() {
    const { about, controls, go } = this.#page;
    const { recording, recordings, layers, crossLayers, item } = this.#generated;
    /** @param {Layer} layer */
    const name = ({ stack, number }) => `${stack}${number}`;
    /** @type {(Node | string)[]} */
    const dropdowns = [];
    if (recordings.length > 1) {
      const options = recordings.map((i) => /** @type {[string, string]} */ ([String(i), truncate(about.recordings[i].title, 28)]));
      dropdowns.push(dropdown("Recording", options, String(recording), (value) => go("generation", { recording: value })));
    }
    const options = layers.map((layer) => /** @type {[string, string]} */ (
      [String(layer.index), `layer ${name(layer)}${crossLayers.length ? ` and ${name(this.#crossLayer(layer))}` : ""}`]));
    const layerDropdown = dropdown("Attention of", [["", "all layers"], ...options], this.#layer ? String(this.#layer.index) : "", (value) => {
      this.#layer = layers.find(({ index }) => String(index) === value) ?? null;
      this.#head = "mean";
      this.#addControls().querySelector("select")?.focus();
      this.#show(this.#step);
    });
    dropdowns.push(layerDropdown);
    if (this.#layer) {
      const heads = Array.from({ length: this.#layer.heads }, (_, i) => /** @type {[string, string]} */ ([String(i), `head ${i}`]));
      dropdowns.push(dropdown("Head", [["mean", "mean of all"], ...heads], String(this.#head), (value) => {
        this.#head = value === "mean" ? value : Number(value);
        this.#show(this.#step);
      }));
    }
    dropdowns.push(itemDropdown(about.layers, layers[0].index, item, (other) => go("generation", { ...this.#state(), item: other })));
    controls.replaceChildren(...dropdowns.filter(Boolean));
    return layerDropdown;
  }

  #state() {
    const { recording, item } = this.#generated;
    return { ...(this.#layer ? { layer: this.#layer.index, head: this.#head } : { recording }), item, step: this.#step };
  }

  /** Show a step; answers for an earlier one that come late are not shown. @param {number} step */
  async #show(step) {
    this.#step = Math.max(0, Math.min(this.#last, step));
    this.#page.saveState(this.#state());
    this.#player.setStep(this.#step, this.#generated.tokens[this.#at]);
    this.#text.show(this.#at);
    const request = ++this.#request;
    try {
      const layers = this.#layer ? [this.#layer] : this.#generated.layers;
      const query = this.#at - 1; // which predicted the new token
      const own = await this.#attention.weights(layers, this.#head, query);
      const isTranslation = this.#generated.crossLayers.length > 0;
      const across = isTranslation ? await this.#attention.weights(layers.map((layer) => this.#crossLayer(layer)), this.#head, query) : null;
      if (request !== this.#request) return;
      this.#weights = { own, across };
      this.#paint();
    } catch (error) {
      if (request !== this.#request || error.name === "AbortError") return;
      this.#weights = null;
      this.#player.stop();
      this.#paint();
      this.#page.setStatus(error.message);
    }
  }

  #paint() {
    this.#text.paint(this.#weights, this.#at - 1, this.#page.theme.table);
    this.#describe();
  }

  /** Fill the panel and the status line. */
  #describe() {
    const { tokens, sourceTokens, crossLayers, steps } = this.#generated;
    const token = tokens[this.#at];
    const alternatives = steps[this.#step] ?? [];
    const inSource = this.#weights?.across ? strongestTokens(this.#weights.across, sourceTokens) : null;
    const inText = this.#weights ? strongestTokens(this.#weights.own, tokens) : null;
    this.#panel.replaceChildren(
      ...tokenTitle(token, this.#at),
      ...(alternatives.length ? alternativesTable(alternatives) : []),
      ...(inSource ? attentionTable("Most attended to in the source", inSource) : []),
      ...(inText ? attentionTable(crossLayers.length ? "Most attended to in the output" : "Most attended to", inText) : []),
    );
    if (!inText) return;
    const chosen = alternatives.find((one) => one.is_written);
    const probability = chosen ? `, probability ${percent(chosen.probability)}` : "";
    const named = [inSource, inText].flatMap((list) => list?.slice(0, 2) ?? []).map(({ quoted, value }) => `${quoted} ${percent(value)}`);
    const head = this.#head === "mean" ? "mean of heads" : `head ${this.#head}`;
    const of = this.#layer ? `layer ${this.#layer.stack}${this.#layer.number}, ${head}` : "mean of all layers";
    this.#page.setStatus(`“${shortToken(token)}” (${this.#at})${probability} · attended to ${named.join(", ")} · ${of}`);
  }

  #csv() {
    if (!this.#weights) throw new Error("there are no numbers yet");
    const { tokens, sourceTokens, prompt, steps } = this.#generated;
    const { own, across } = this.#weights;
    const alternatives = steps[this.#step] ?? [];
    return [
      ["what", "position", "token", "weight", "probability"],
      ["new token", this.#at, tokens[this.#at], "", alternatives.find((one) => one.is_written)?.probability ?? ""],
      ...sourceTokens.map((token, i) => ["source", i, token, across?.[i], ""]),
      ...tokens.slice(0, this.#at).map((token, i) => [i < prompt ? "prompt" : "output", i, token, own[i], ""]),
      ...alternatives.map((one) => ["alternative", "", one.word, "", one.probability]),
    ];
  }

  #listen() {
    const { view, signal, setStatus } = this.#page;
    const { prompt, tokens } = this.#generated;
    this.#text.element.addEventListener("click", ({ target }) => {
      const token = tokenAt(target);
      if (token?.dataset.of === "own" && Number(token.dataset.at) >= prompt) this.#player.go(Number(token.dataset.at) - prompt);
    });
    this.#text.element.addEventListener("pointerover", ({ target }) => {
      const token = tokenAt(target);
      if (token?.title) setStatus(`“${shortToken(token.textContent ?? "")}” (${token.dataset.at}): ${token.title} of the attention when “${shortToken(tokens[this.#at])}” was predicted`);
    });
    // Keys of the whole page; in a notebook, only while the focus is inside.
    view.getRootNode().addEventListener("keydown", (event) => {
      if (event instanceof KeyboardEvent && this.#pressed(event)) event.preventDefault();
    }, { signal });
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether the key does something here */
  #pressed(event) {
    const target = event.composedPath()[0];
    const isIn = (/** @type {string} */ selector) => target instanceof Element && target.closest(selector) !== null;
    if (event.ctrlKey || event.metaKey || event.altKey || isIn("select, input:not([type=range])")) return false;
    const step = /** @type {Record<string, number>} */ ({ ArrowLeft: this.#step - 1, ArrowRight: this.#step + 1, Home: 0, End: this.#last })[event.key];
    if (event.key === " " && !isIn("button, a, summary")) this.#player.toggle();
    else if (step !== undefined && target !== this.#player.slider) this.#player.go(step);
    else return false;
    return true;
  }
}

/** @param {EventTarget | null} target */
function tokenAt(target) {
  return target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest("span[data-of]")) : null;
}
