// The Ablate view: knock out heads, words or links, and see what the model answers without them.
import { percent, shade } from "./colours.js";
import { button, createElement, dropdown, hint, recordingName, truncate } from "./elements.js";
import { formatEdit, formatEdits, parseEdits } from "./edits.js";
import { barLength, measureText } from "./head_measures.js";
import { loadEffects } from "./head_effects.js";
import { loadTokens } from "./tokens.js";
import { choiceParam, integerParam, optionalInteger } from "./url_state.js";

const MOST_WORDS = 2000; // on the page, the last ones of a text
const STACKS = { e: "Encoder", d: "Decoder", x: "Cross-attention", "": "Heads" };

/** @typedef {import("./edits.js").Edit} Edit */
/**
 * @typedef {object} Outcome the answer to "ablated"
 * @property {"next token" | "label" | "translation" | "embedding"} kind
 * @property {number | null} position of the token after which the next one is predicted
 * @property {string} measure the name of `effect`
 * @property {number} effect how far the two are apart
 * @property {string[]} names
 * @property {number[]} before probabilities
 * @property {number[]} after
 * @property {[string, string] | null} texts what is written, before and after
 */

/** @param {Page} page */
export async function ablate(page) {
  const { about, params } = page;
  const first = integerParam(params, "layer", about.layers.length - 1, -1);
  const chosen = optionalInteger(params, "recording", about.recordings.length - 1) ?? (first < 0 ? 0 : about.layers[first].recording);
  await new Ablate(page, chosen).start();
}

class Ablate {
  #page;
  #recording;
  /** @type {{layer: Layer, index: number}[]} */
  #layers;
  /** @type {Edit[]} */
  #edits;
  #left; // of the address, what this text does not have
  #mode; // what a click on a word does: "words", or "links"
  /** @type {number | "all"} */
  #head = "all"; // of links
  #linkLayer; // of links
  /** @type {number | null} */
  #position; // after which the next token is predicted; null for the last
  /** @type {{layer: number, query: number} | null} */
  #from = null; // the word of a link whose other end is not chosen yet
  /** @type {{index: number, name: string, words: string[], element: HTMLElement}[]} */
  #texts = [];
  /** @type {Outcome | null} */
  #outcome = null;
  #request = new AbortController();
  /** @type {Map<string, HTMLButtonElement>} */
  #heads = new Map();
  /** @type {import("./head_measures.js").HeadRow[]} */
  #rows = [];
  #list = createElement("ul", { className: "edits", data: { "aria-label": "Knocked out" } });
  #answer = createElement("section", { className: "panel", tabIndex: 0, data: { "aria-label": "What the model answers" } });
  #parts = createElement("div", { className: "parts", tabIndex: 0, data: { role: "region", "aria-label": "What can be knocked out" } });
  #controls = createElement("span", { className: "controls" });

  /** @param {Page} page @param {number} recording */
  constructor(page, recording) {
    const { about, params } = page;
    this.#page = page;
    this.#recording = recording;
    this.#layers = about.layers.flatMap((layer, index) => (layer.recording === recording ? [{ layer, index }] : []));
    const { edits, left } = parseEdits(params.get("edits") ?? "", about.layers);
    this.#edits = edits.filter((edit) => about.layers[edit.layer].recording === recording);
    this.#left = [...left, ...edits.filter((edit) => !this.#edits.includes(edit)).map(formatEdit)];
    this.#mode = choiceParam(params, "by", ["words", "links"], "words");
    this.#linkLayer = this.#layers[0].index;
    this.#position = optionalInteger(params, "after", this.#longest() - 1);
    if (this.#position === null && params.has("after")) this.#left.push(`after=${params.get("after")}`);
  }

  #longest() {
    return Math.max(...this.#layers.map(({ layer }) => layer.queries));
  }

  async start() {
    const { view, controls, setExport, theme, setStatus, about } = this.#page;
    if (!about.recordings[this.#recording].can_run) {
      view.append(createElement("div", { className: "nothing" },
        createElement("p", { textContent: "Knocking something out takes the model: it runs once more without it. This recording comes without its model." }),
        createElement("p", {}, "Open a text together with a model:", createElement("code", { textContent: 'pellucid view "The cat sat on the mat" --model decoder' }))));
      setStatus("This recording comes without its model");
      return;
    }
    await this.#loadTexts();
    this.#fillControls();
    controls.append(this.#controls);
    if (this.#left.length) this.#parts.append(createElement("p", { className: "complaint", textContent: `The address names what this text does not have: ${truncate(this.#left.join(", "), 200)}.`, data: { role: "alert" } }));
    this.#parts.append(...this.#texts.map(({ element }) => element), ...this.#headGrids());
    view.append(createElement("div", { className: "ablate" }, this.#parts, this.#answer));
    setExport({ csv: () => this.#csv() });
    theme.onChange(() => this.#paintHeads());
    this.#changed();
  }

  /* What can be knocked out */

  async #loadTexts() {
    const { source } = this.#page;
    /** @type {Map<string, number>} the first layer that reads each text, by the words */
    const firsts = new Map();
    for (const { layer, index } of this.#layers) {
      const words = await loadTokens(source, index, 0, "keys", layer.keys);
      const id = words.join("\0");
      if (!firsts.has(id)) {
        firsts.set(id, index);
        const isDecoder = layer.stack === "d";
        const name = this.#layers.some((one) => one.layer.is_cross) ? (isDecoder ? "Translation" : "Source") : "Text";
        this.#texts.push({ index, name, words, element: this.#textOf(index, name, words) });
      }
    }
  }

  /** @param {number} index the first layer that reads it @param {string} name @param {string[]} words */
  #textOf(index, name, words) {
    const start = Math.max(0, words.length - MOST_WORDS);
    const spans = words.slice(start).flatMap((word, i) => {
      const rest = word.replace(/^ +/, "");
      const token = createElement("button", { type: "button", className: "token", textContent: rest.replace(/\n/g, "⏎") || (word ? "␣" : "·"), data: { "data-layer": index, "data-at": start + i } });
      token.addEventListener("click", () => this.#pick(index, start + i));
      return [word.length > rest.length ? " " : "", token];
    });
    const left = start ? [createElement("p", { className: "faint", textContent: `The first ${start.toLocaleString()} tokens are not listed.` })] : [];
    return createElement("section", {}, createElement("h2", { textContent: name }), ...left, createElement("p", { className: "tokens", dir: "auto" }, ...spans));
  }

  #headGrids() {
    /** @type {Map<string, {layer: Layer, index: number}[]>} */
    const stacks = new Map();
    for (const one of this.#layers) stacks.set(one.layer.stack, [...(stacks.get(one.layer.stack) ?? []), one]);
    return [...stacks].map(([stack, some]) => {
      const rows = some.map(({ layer, index }) => createElement("tr", {}, createElement("th", { scope: "row", textContent: String(layer.number) }), ...Array.from({ length: layer.heads }, (_, head) => {
        const element = button(String(head), `Knock out head ${head} of layer ${layer.stack}${layer.number}`, () => this.#toggle({ kind: "head", layer: index, head }));
        this.#heads.set(`${index}.${head}`, element);
        return createElement("td", {}, element);
      })));
      return createElement("section", {}, createElement("h2", { textContent: stack === "" ? "Heads, by layer" : `${STACKS[stack] ?? stack} heads, by layer` }),
        createElement("table", { className: "heads" }, createElement("tbody", {}, ...rows)));
    });
  }

  #fillControls() {
    const { about, go } = this.#page;
    const able = about.recordings.flatMap((one, i) => (one.can_run ? [/** @type {[string, string]} */ ([String(i), recordingName(about.recordings, i, 28)])] : []));
    const mode = dropdown("A click on a word", [["words", "hides it from all"], ["links", "begins a link to cut"]], this.#mode, (value) => {
      this.#mode = value;
      this.#from = null;
      this.#fillControls();
      this.#controls.querySelectorAll("select")[able.length > 1 ? 1 : 0]?.focus();
      this.#changed();
    });
    const where = this.#layers.map(({ layer, index }) => /** @type {[string, string]} */ ([String(index), `${layer.stack}${layer.number}${layer.is_cross ? ", cross-attention" : ""}`]));
    const heads = Array.from({ length: this.#page.about.layers[this.#linkLayer].heads }, (_, i) => /** @type {[string, string]} */ ([String(i), String(i)]));
    const ofLinks = this.#mode === "links" ? [
      dropdown("in layer", where, String(this.#linkLayer), (value) => { this.#linkLayer = Number(value); this.#head = "all"; this.#from = null; this.#fillControls(); this.#paint(); }),
      dropdown("head", [["all", "all"], ...heads], String(this.#head), (value) => { this.#head = value === "all" ? "all" : Number(value); }),
    ] : [];
    const worded = (/** @type {string} */ textContent, /** @type {string} */ title, /** @type {() => void} */ call) => {
      const element = createElement("button", { type: "button", textContent, title });
      element.addEventListener("click", call);
      return element;
    };
    const effects = worded("Measure all heads", "Knock out each head in turn, and tint it by how much the answer changes", () => this.#measure());
    this.#controls.replaceChildren(
      ...(able.length > 1 ? [dropdown("Text", able, String(this.#recording), (value) => go("ablate", { recording: Number(value) }))] : []),
      mode, ...ofLinks, effects, worded("Put all back", "Knock out nothing", () => { this.#edits = []; this.#from = null; this.#changed(); }));
  }

  /* What is knocked out */

  /** @param {number} layer the first that reads the text @param {number} at */
  #pick(layer, at) {
    if (this.#mode === "words") {
      this.#toggle({ kind: "word", layer, key: at });
      return;
    }
    const of = this.#page.about.layers[this.#linkLayer];
    if (this.#from) {
      const { query } = this.#from;
      this.#from = null;
      if (at < of.keys) this.#toggle({ kind: "link", layer: this.#linkLayer, head: this.#head, query, key: at });
      else this.#changed();
      return;
    }
    if (at >= of.queries) return;
    this.#from = { layer, query: at };
    this.#paint();
    this.#page.setStatus(`“${this.#word(layer, at)}” (${at}) will not attend to … ${hint("click the word that it attends to", "tap the word that it attends to")}`);
  }

  /** @param {Edit} edit */
  #toggle(edit) {
    const name = formatEdit(edit);
    const without = this.#edits.filter((one) => formatEdit(one) !== name);
    this.#edits = without.length < this.#edits.length ? without : [...this.#edits, edit];
    this.#changed();
  }

  #changed() {
    this.#page.saveState({
      ...(this.#recording ? { recording: this.#recording } : {}),
      ...(this.#edits.length ? { edits: formatEdits(this.#edits) } : {}),
      ...(this.#position === null ? {} : { after: this.#position }),
      ...(this.#mode === "words" ? {} : { by: this.#mode }),
    });
    this.#paint();
    this.#ask();
  }

  async #ask() {
    const { source, setStatus } = this.#page;
    this.#request.abort();
    const { signal } = (this.#request = new AbortController());
    this.#page.signal.addEventListener("abort", () => this.#request.abort(), { signal });
    const options = new URLSearchParams({ ...(this.#edits.length ? { edits: formatEdits(this.#edits) } : {}), ...(this.#position === null ? {} : { after: String(this.#position + 1) }) });
    this.#answer.classList.add("waiting");
    setStatus("The model runs …");
    try {
      const outcome = await source.json(`ablated/${this.#recording}?${options}`, signal);
      if (signal.aborted) return;
      this.#outcome = outcome;
      this.#describe();
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      this.#outcome = null;
      const why = source.code ? error.message : "a saved page has no model, and knows what was knocked out before it was saved";
      this.#answer.replaceChildren(createElement("p", { className: "complaint", textContent: `Cannot answer this: ${why}.` }), createElement("h3", { textContent: "Knocked out" }), this.#list);
      setStatus(why);
    } finally {
      if (!signal.aborted) this.#answer.classList.remove("waiting");
    }
  }

  /* What is shown */

  /** @param {number} layer the first that reads the text @param {number} at */
  #word(layer, at) {
    const of = this.#page.about.layers[layer];
    const text = this.#texts.find(({ index }) => index === layer) ?? this.#texts.find(({ words }) => words.length === of.keys);
    return truncate(text?.words[at] ?? `#${at}`, 20);
  }

  /** @param {Edit} edit */
  #nameOf(edit) {
    const { stack, number } = this.#page.about.layers[edit.layer];
    if (edit.kind === "head") return `head ${stack}${number}.${edit.head}`;
    if (edit.kind === "word") return `“${this.#word(edit.layer, edit.key)}” (${edit.key}), hidden from all`;
    const where = `layer ${stack}${number}, ${edit.head === "all" ? "all heads" : `head ${edit.head}`}`;
    return `“${this.#queryWord(edit.layer, edit.query)}” (${edit.query}) → “${this.#word(edit.layer, edit.key)}” (${edit.key}), ${where}`;
  }

  /** @param {number} layer @param {number} at */
  #queryWord(layer, at) {
    const of = this.#page.about.layers[layer];
    const reads = this.#layers.find(({ layer: one }) => !one.is_cross && one.queries === of.queries && one.keys === of.queries);
    return this.#word(reads?.index ?? layer, at);
  }

  #paint() {
    const hidden = new Set(this.#edits.flatMap((edit) => (edit.kind === "word" ? [`${edit.layer}.${edit.key}`] : [])));
    for (const token of /** @type {NodeListOf<HTMLElement>} */ (this.#parts.querySelectorAll(".token"))) {
      const layer = Number(token.dataset.layer);
      const at = Number(token.dataset.at);
      token.setAttribute("aria-pressed", String(hidden.has(`${layer}.${at}`)));
      token.classList.toggle("from", this.#from?.layer === layer && this.#from.query === at);
      token.title = this.#mode === "words" ? `Token ${at}: hide it from all` : `Token ${at}`;
    }
    this.#paintHeads();
    this.#list.replaceChildren(...this.#edits.map((edit) => createElement("li", {}, `${this.#nameOf(edit)} `, button("×", `Put back ${this.#nameOf(edit)}`, () => this.#toggle(edit)))));
  }

  #paintHeads() {
    const out = new Set(this.#edits.flatMap((edit) => (edit.kind === "head" ? [`${edit.layer}.${edit.head}`] : [])));
    for (const [place, element] of this.#heads) {
      const row = this.#rows.find((one) => `${one.layer_index}.${one.head}` === place);
      const { paper, ink } = row && !out.has(place) ? shade(barLength("effect", row, this.#rows), this.#page.theme.table) : { paper: "", ink: "" };
      Object.assign(element.style, { background: paper, color: ink });
      element.setAttribute("aria-pressed", String(out.has(place)));
      if (row) element.title = `${element.getAttribute("aria-label")}: effect ${measureText("effect", row.effect)}`;
    }
  }

  async #measure() {
    const { source, signal, setStatus } = this.#page;
    try {
      await loadEffects(source, signal, ({ done, of, rows }) => {
        this.#rows = rows.filter((row) => this.#layers.some(({ index }) => index === row.layer_index));
        this.#paintHeads();
        setStatus(done < of ? `knocking out each head: ${done} of ${of} layers` : "All heads are measured; darker or brighter colours are larger effects");
      });
    } catch (error) {
      if (!signal.aborted) setStatus(error.message);
    }
  }

  #describe() {
    const outcome = this.#outcome;
    if (!outcome) return;
    const isChanged = this.#edits.length > 0;
    const { names, before, after, texts, kind, measure, effect } = outcome;
    const title = { "next token": "What comes next", label: "The verdict", translation: "The translation", embedding: "The embedding" }[kind];
    const compared = isChanged
      ? createElement("p", { className: "effect", textContent: `${measure}: ${measureText("effect", effect)}` })
      : createElement("p", { className: "faint", textContent: hint("Click a head or a word: the model runs again without it.", "Tap a head or a word: the model runs again without it.") });
    this.#answer.replaceChildren(
      createElement("h2", { textContent: title }),
      ...(texts ? this.#written(texts, isChanged) : []),
      ...(outcome.position === null ? [] : [this.#positionControl(outcome.position)]),
      ...(names.length ? [this.#bars(names, before, isChanged ? after : null)] : []),
      compared,
      ...(isChanged ? [createElement("h3", { textContent: "Knocked out" }), this.#list] : []),
    );
    const best = (some) => some.indexOf(Math.max(...some));
    const told = names.length ? `“${truncate(names[best(before)], 20)}” ${percent(before[best(before)])}${isChanged ? ` → “${truncate(names[best(after)], 20)}” ${percent(after[best(after)])}` : ""}` : texts?.[1] ?? "";
    this.#page.setStatus([told, isChanged ? `${measure} ${measureText("effect", effect)}` : "nothing is knocked out"].filter(Boolean).join(" · "));
  }

  /** @param {number} last the position after which the next token is predicted */
  #positionControl(last) {
    const text = this.#texts.at(-1);
    const input = createElement("input", { type: "number", min: 0, max: (text?.words.length ?? 1) - 1, value: last });
    input.addEventListener("change", () => {
      if (!input.checkValidity()) return;
      this.#position = input.valueAsNumber === (text?.words.length ?? 1) - 1 ? null : input.valueAsNumber;
      this.#changed();
    });
    return createElement("p", {}, createElement("label", {}, "The next token after token ", input), ` “${truncate(text?.words[last] ?? "", 20)}”`);
  }

  /** @param {[string, string]} texts @param {boolean} isChanged */
  #written([before, after], isChanged) {
    const quote = (name, text) => createElement("blockquote", { dir: "auto" }, ...(isChanged ? [createElement("b", { textContent: `${name} ` })] : []), text);
    return isChanged ? [quote("before", before), quote("after", after)] : [quote("", before)];
  }

  /** @param {string[]} names @param {number[]} before @param {number[] | null} after */
  #bars(names, before, after) {
    const bar = (/** @type {number} */ value, className) => {
      const element = createElement("span", { className: `bar ${className}` });
      element.style.width = `${100 * value}%`;
      return element;
    };
    return createElement("table", { className: "paired" },
      createElement("thead", {}, createElement("tr", {}, createElement("th", {}), createElement("th", {}), createElement("th", { scope: "col", textContent: after ? "before" : "" }), ...(after ? [createElement("th", { scope: "col", textContent: "after" })] : []))),
      createElement("tbody", {}, ...names.map((name, i) => createElement("tr", {},
        createElement("th", { scope: "row", textContent: truncate(name, 18) }),
        createElement("td", {}, bar(before[i], "before"), ...(after ? [bar(after[i], "after")] : [])),
        createElement("td", { textContent: percent(before[i]) }),
        ...(after ? [createElement("td", { textContent: percent(after[i]) })] : [])))));
  }

  #csv() {
    if (!this.#outcome) throw new Error("there are no numbers yet");
    const { names, before, after, measure, effect, texts } = this.#outcome;
    return [
      ["what", "name", "before", "after"],
      ...names.map((name, i) => ["probability", name, before[i], after[i]]),
      ...(texts ? [["text", "", ...texts]] : []),
      ["effect", measure, "", effect],
      ...this.#edits.map((edit) => ["knocked out", this.#nameOf(edit), "", ""]),
    ];
  }
}
