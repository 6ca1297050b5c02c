// The Links view: tokens and the weights between them, as curves or as a grid.
import { attentionGrid } from "./attention_grid.js";
import { between } from "./camera.js";
import { Curves } from "./curves.js";
import { canonicalPath } from "./data_source.js";
import { button, createElement, dropdown, itemDropdown, recordingName } from "./elements.js";
import { loadTokens } from "./tokens.js";
import { integerParam, optionalInteger } from "./url_state.js";

const MOST = { links: 200, grid: 64 }; // tokens of one side that are shown at once
const AROUND = 50; // of those before a token of the address

/** @param {Page} page */
export async function links(page) {
  const { about, params, view, controls, setStatus, signal, theme } = page;
  const { layers } = about;
  const now = chosen(params, layers);
  let paths = []; // of the answers that are shown
  /** @type {Curves | ReturnType<typeof attentionGrid> | null} */
  let shown = null; // the picture of them
  let turn = 0; // of loading; what comes late is not drawn
  const body = createElement("div", { className: "links" });
  const bars = [createElement("span", {}), createElement("span", {}), createElement("span", {})];
  view.append(body);
  controls.append(...bars, itemDropdown(layers, now.layer, now.item, (item) => page.go("links", { ...state(), item })));
  page.setExport({ csv: () => shown?.rows() ?? [], needs: () => new Set(paths.map(canonicalPath)) });
  theme.onChange(() => shown?.paint());
  const resized = new ResizeObserver(() => place());
  resized.observe(view);
  signal.addEventListener("abort", () => resized.disconnect());
  fill();
  await load();
  const pinned = body.querySelector("[aria-pressed=true].word")?.getBoundingClientRect();
  if (pinned) view.scrollTop += (pinned.top + pinned.bottom) / 2 - view.getBoundingClientRect().top - view.clientHeight / 2;

  function layerOf() {
    return layers[now.layer];
  }

  /** What the address says of what is chosen: see `chosen`. */
  function state() {
    const { layer, item, picture, head, least, first, off, pinned } = now;
    return {
      layer, item, head, picture,
      ...(least === null ? {} : { least }),
      ...(off.size ? { off: [...off].sort((a, b) => a - b).join(".") } : {}),
      ...(first.queries ? { first: first.queries } : {}),
      ...(first.keys && layerOf().is_cross ? { firstkey: first.keys } : {}),
      ...(pinned ? { [pinned.side === "queries" ? "token" : "key"]: pinned.at } : {}),
    };
  }

  function saveState() {
    page.saveState(state());
  }

  /* What is chosen */

  /** @returns {[string, string][]} */
  function layerOptions() {
    const of = ({ recording }) => (about.recordings.length > 1 ? `${recordingName(about.recordings, recording, 28)}: ` : "");
    return layers.flatMap((one, i) => {
      const isFirst = one.is_cross && layers.findIndex((other) => other.is_cross && other.recording === one.recording) === i;
      const name = `${of(one)}${one.stack}${one.number}${one.is_cross ? ", cross-attention" : ""}`;
      return /** @type {[string, string][]} */ ([...(isFirst ? [[`${i}.align`, `${of(one)}alignment`]] : []), [String(i), name]]);
    });
  }

  /** @returns {[string, string][]} */
  function headOptions() {
    const one = Array.from({ length: layerOf().heads }, (_, head) => /** @type {[string, string]} */ ([String(head), `head ${head}`]));
    const mean = /** @type {[string, string]} */ (["mean", "mean of all"]);
    return now.picture === "links" ? [["all", "all, in colours"], mean, ...one] : [mean, ...one];
  }

  /** Controls for what there is to choose now; the one that has the focus stays as it is. */
  function fill(but = -1) {
    const isAlignment = now.head === "align";
    const options = headOptions();
    if (!isAlignment && !options.some(([value]) => value === now.head)) now.head = options[0][0];
    const again = (by) => { fill(by); load(); };
    const fresh = [
      dropdown("Layer", layerOptions(), isAlignment ? `${now.layer}.align` : String(now.layer), (value) => { turnTo(value); again(0); }),
      isAlignment ? createElement("span", {}) : dropdown("Heads", options, now.head, (value) => { now.head = value; again(1); }),
      dropdown("Show as", [["links", "curves"], ["grid", "grid"]], now.picture, (value) => { now.picture = value; again(2); }),
    ];
    fresh.forEach((one, i) => {
      if (i === but) return;
      bars[i].replaceWith(one);
      bars[i] = one;
    });
  }

  /** Another layer, or the alignment; tokens stay as they are where the new ones are the same. @param {string} value */
  function turnTo(value) {
    const [layer, align] = value.split(".");
    const before = layerOf();
    now.layer = Number(layer);
    if (align || now.head === "align") now.head = align ?? "";
    const isOther = (name) => before[name] !== layerOf()[name];
    if (["queries", "keys", "is_cross"].some(isOther)) Object.assign(now, { pinned: null, first: { queries: 0, keys: 0 } });
    if (isOther("items")) now.item = 0;
    now.off.clear();
  }

  /** Which tokens of a side are shown: all, or as many as fit. @param {Side} side */
  function span(side) {
    const size = layerOf()[side];
    const count = Math.min(size, MOST[now.picture]);
    const first = now.first[layerOf().is_cross ? side : "queries"];
    return { first: between(0, Math.round(first) || 0, size - count), count, size };
  }

  /** Where the tokens that are shown begin, if these are not all. */
  function windows() {
    /** @type {Side[]} */
    const sides = layerOf().is_cross ? ["queries", "keys"] : ["queries"];
    return sides.flatMap((side) => {
      const { first, count, size } = span(side);
      if (count === size) return [];
      const go = (to) => { now.first[side] = to; load(); };
      const name = sides.length > 1 ? `${side} ` : "";
      const number = createElement("input", { type: "number", min: 0, max: size - count, value: first, data: { "aria-label": `First of the ${name}tokens shown` } });
      number.addEventListener("change", () => go(number.valueAsNumber));
      return [createElement("span", { className: "window" },
        `${name}tokens `,
        button("◀", `Earlier ${name}tokens`, () => go(first - count / 2)), number,
        button("▶", `Later ${name}tokens`, () => go(first + count / 2)),
        ` to ${(first + count - 1).toLocaleString()} of ${size.toLocaleString()}`)];
    });
  }

  /* What is shown */

  async function load() {
    const mine = ++turn;
    const isLate = () => turn !== mine || signal.aborted;
    const spans = { queries: span("queries"), keys: span("keys") };
    now.first = { queries: spans.queries.first, keys: spans.keys.first };
    saveState();
    setStatus("…");
    try {
      let found = layerOf().is_cross ? await aligned(page, { ...now }) : null;
      if (isLate()) return;
      if (!found && now.head === "align") {
        now.head = "mean";
        fill();
      }
      found ??= await tokens(page, { ...now }, spans);
      if (isLate()) return;
      paths = found.paths;
      draw(found);
    } catch (error) {
      if (isLate() || error.name === "AbortError") return;
      shown = null;
      body.replaceChildren(createElement("p", { className: "complaint", textContent: `Cannot show this: ${error.message}.` }));
      setStatus(error.message);
    }
  }

  function place() {
    if (shown instanceof Curves) shown.place();
  }

  /** Put another picture in place; what had the focus has it again. @param {ShownWeights} found */
  function draw(found) {
    const more = found.isAligned ? [] : windows();
    shown = now.picture === "grid"
      ? attentionGrid(page, found, more)
      : new Curves(page, found, now, { windows: more, note: now.head === "align" ? `${found.of}.` : "", changed: saveState });
    const { activeElement } = /** @type {Document | ShadowRoot} */ (body.getRootNode());
    const name = body.contains(activeElement) && activeElement?.getAttribute("aria-label");
    body.replaceChildren(shown.bar, shown.picture);
    place();
    if (name) /** @type {HTMLElement[]} */ ([...body.querySelectorAll("[aria-label]")]).find((one) => one.getAttribute("aria-label") === name)?.focus();
  }
}

/** What to show, from the URL. @param {URLSearchParams} params @param {Layer[]} layers @returns {any} */
function chosen(params, layers) {
  const newest = layers.findIndex((one) => one.is_cross && one.recording === 0);
  const layer = integerParam(params, "layer", layers.length - 1, Math.max(0, newest));
  const { items, queries, keys, is_cross: isCross } = layers[layer];
  const wanted = { head: params.get("head") ?? (isCross ? "align" : ""), picture: params.get("picture") };
  const pinned = params.has("token") ? { side: "queries", at: integerParam(params, "token", queries - 1) }
    : params.has("key") ? { side: "keys", at: integerParam(params, "key", keys - 1) } : null;
  const before = (side) => (pinned && (pinned.side === side || !isCross) ? Math.max(0, pinned.at - AROUND) : 0);
  return {
    layer,
    item: integerParam(params, "item", items - 1),
    picture: wanted.picture === "links" || wanted.picture === "grid" ? wanted.picture : isCross ? "grid" : "links",
    head: wanted.head === "align" && !isCross ? "" : wanted.head, // a number, "align", "all" or "mean"
    least: optionalInteger(params, "least", 100), // a place of the slider; null for what is usual
    off: new Set((params.get("off") ?? "").split(".").filter((one) => /^\d{1,9}$/.test(one)).map(Number)), // heads
    pinned, // the word that is pinned
    first: { queries: integerParam(params, "first", queries - 1, before("queries")), keys: integerParam(params, "firstkey", keys - 1, before("keys")) },
  };
}

/**
 * @typedef {{first: number, count: number, size: number, words: string[]}} ShownTokens the tokens of one side that are shown
 * @typedef {object} ShownWeights
 * @property {ShownTokens} queries
 * @property {ShownTokens} keys
 * @property {Float32Array[]} planes the weights of each head, (queries, keys)
 * @property {number[]} heads the head of each plane; empty for a mean
 * @property {string} of what the weights are called
 * @property {boolean} [isAligned] whether they align the words of a translation
 * @property {string[]} paths of the answers
 */

/** The weights between tokens. @param {Page} page @param {any} place @param {any} spans @returns {Promise<ShownWeights>} */
async function tokens({ source, signal, about }, { layer, item, head }, { queries, keys }) {
  const one = about.layers[layer];
  const part = `${queries.first}/${keys.first}?queries=${queries.count}&keys=${keys.count}`;
  const heads = head === "all" ? Array.from({ length: one.heads }, (_, i) => i) : head === "mean" ? [] : [Number(head)];
  const paths = heads.length ? heads.map((each) => `weights/${layer}/${item}/${each}/${part}`) : [`mean/${layer}/${item}/${part}`];
  const planes = await Promise.all(paths.map(async (path) => (await source.numbers(path, signal)).values));
  const side = async (name, span) => ({ ...span, words: (await loadTokens(source, layer, item, name, one[name])).slice(span.first, span.first + span.count) });
  const [down, across] = await Promise.all([side("queries", queries), side("keys", keys)]);
  return { paths, planes, heads, of: nameOf(one, head), queries: down, keys: across };
}

/** The weights between the words of a translation and of its source; null where words are not known. @param {Page} page @param {any} place @returns {Promise<ShownWeights | null>} */
async function aligned({ source, signal, about }, { layer, item, head }) {
  const paths = [`alignment/${about.layers[layer].recording}/${item}`];
  let found;
  try {
    found = await source.json(paths[0], signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
  const side = (some) => ({ first: 0, count: some.length, size: some.length, words: some });
  const sides = { queries: side(found.target), keys: side(found.source), heads: [], isAligned: true, paths };
  if (head === "align") return { ...sides, planes: [Float32Array.from(found.weights.flat())], of: found.of[0].toUpperCase() + found.of.slice(1) };
  paths.push(`aligned/${layer}/${item}`);
  const { values, shape: [count, ...sizes] } = await source.numbers(paths[1], signal);
  const size = sizes[0] * sizes[1];
  const each = Array.from({ length: count }, (_, one) => values.subarray(one * size, (one + 1) * size));
  const mean = () => each[0].map((_, i) => each.reduce((sum, one) => sum + one[i], 0) / count);
  const planes = head === "all" ? each : [head === "mean" ? mean() : each[head]];
  return { ...sides, planes, heads: head === "all" ? [...each.keys()] : [], of: nameOf(about.layers[layer], head) };
}

/** @param {Layer} layer @param {string} head */
function nameOf({ stack, number }, head) {
  const heads = { all: "", mean: ", mean of heads" };
  return `Layer ${stack}${number}${heads[head] ?? `, head ${head}`}`;
}
