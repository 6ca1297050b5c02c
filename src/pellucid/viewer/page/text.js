// The Text view: click a word to see what it attends to, or what attends to it, as shading.
import { least, percent, shade, share } from "./colours.js";
import { canonicalPath } from "./data_source.js";
import { button, context2d, createElement, dropdown, hint, itemDropdown, recordingName, truncate } from "./elements.js";
import { EachHead } from "./each_head.js";
import { strongest } from "./strongest.js";
import { loadTokens } from "./tokens.js";
import { choiceParam, integerParam, optionalInteger } from "./url_state.js";
import { VirtualText } from "./virtual_text.js";

const WAYS = {
  head: { to: ["what a word attends to", "attends to"], from: ["what attends to a word", "is attended to by"] },
  rollout: { to: ["what a word is made of", "is made of"], from: ["what a word is part of", "is part of"] },
};
WAYS.layer = WAYS.head;
const SCALES = { full: Math.sqrt, linear: (part) => part, root: Math.sqrt };
const STACKS = { e: "encoder", d: "decoder", x: "cross-attention" };
const NAMED = 3; // words that the status line names
const FEW = 90; // words that are written large
const CHOOSE = () => hint("Click a word, or move to one with the arrow keys and press Enter", "Tap a word");
const WIDE = 140; // pixels of the legend

/** @param {Page} page */
export async function text(page) {
  const { about, source, params, view, controls, setStatus, signal, theme } = page;
  const { layers, recordings, side } = about;
  const now = { layer: integerParam(params, "layer", layers.length - 1) };
  const layer = layers[now.layer];
  const isCross = layer.is_cross;
  const before = isCross ? 0 : layer.keys - layer.queries; // words of which no query was recorded
  now.item = integerParam(params, "item", layer.items - 1);
  now.head = integerParam(params, "head", layer.heads - 1);
  now.by = choiceParam(params, "by", isCross ? ["head", "layer"] : ["head", "layer", "rollout"], "head");
  now.way = params.get("way") === "from" ? "from" : "to";
  const usual = layer.keys < FEW ? "full" : "root"; // in long texts no weight would be seen beside 100 %
  now.scale = choiceParam(params, "scale", ["full", "linear", "root", "log"], usual);
  const sizeOf = (way) => (isCross && way === "to" ? layer.queries : layer.keys);
  now.token = optionalInteger(params, "token", sizeOf(now.way) - 1);
  let weights = null; // of each word of the text that is shaded
  let most = 1;
  let summary = "";
  let isPointed = false;
  let wanted = new Set(); // paths of the answers that are shown
  let stop = new AbortController(); // of the request that runs
  /** @type {{wanted: string, paper?: VirtualText, found: [number, number][], at: number}} */
  let places = { wanted: "", found: [], at: -1 }; // where the text stands that is looked for
  const known = new Map(); // all weights of a head or layer, where these are few

  /** @type {Side[]} */
  const sides = isCross ? ["queries", "keys"] : ["keys"];
  const found = await Promise.all(sides.map((name) => loadTokens(source, now.layer, now.item, name, layer[name])));
  const texts = found.map((some, i) => new VirtualText(some.map((word, at) => (at && word === `#${at}` ? ` ${word}` : word)), {
    name: isCross ? `${i ? "The encoder's text" : "The decoder's text"}: arrow keys move, Enter selects a word` : "The text: arrow keys move, Enter selects a word",
    signal,
    choose: (at) => choose(i, at),
    point: (at) => point(i, at),
  }));
  const titles = ["Decoder: attends", "Encoder: attended to"];
  const columns = texts.map((paper, i) => (isCross ? createElement("section", {}, createElement("h2", { textContent: titles[i] }), paper.element) : paper.element));
  const legend = createElement("div", { className: "legend" });
  const seek = createElement("input", { type: "search", placeholder: "Find", data: { "aria-label": "Find in the text: Enter goes to the next match" } });
  const foot = createElement("div", { className: "foot" },
    createElement("span", {}, seek, button("↓", "Next match", () => seekNext(1))), legend,
    dropdown("Scale", [["full", "to 100 %, square root"], ["root", "to the strongest, square root"], ["linear", "to the strongest, linear"], ["log", "to the strongest, logarithmic"]], now.scale, (value) => { now.scale = value; page.saveState(state()); paint(); }));
  const kind = isCross ? " both" : found[0].length < FEW ? " short" : "";
  const each = !isCross && EachHead.fits(layer, found[0].length) ? new EachHead(page, found[0], (head) => { Object.assign(now, { by: "head", head }); again(); }) : null;
  view.append(createElement("div", { className: `text${kind}` }, ...columns, ...(each ? [each.element] : []), foot));
  texts.forEach((paper) => paper.start());
  const bars = [createElement("span", {}), createElement("span", {}), createElement("span", {})];
  controls.append(
    ...bars,
    itemDropdown(layers, now.layer, now.item, (item) => page.go("text", { ...state(), item })),
  );
  seek.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    seekNext(event.shiftKey ? -1 : 1);
  });
  fill();
  theme.onChange(paint);
  page.setExport({ csv, needs: () => wanted });
  tell(CHOOSE());
  paint();
  if (now.token !== null) {
    (isCross && now.way === "from" ? texts[1] : texts[0]).reveal(now.token);
    await look();
  }

  function state() {
    const { token, by, scale, ...rest } = now;
    return { ...rest, ...(by === "head" ? {} : { by }), ...(scale === usual ? {} : { scale }), ...(token === null ? {} : { token }) };
  }

  /* What is chosen */

  /** @param {Layer} one */
  function layerName(one) {
    const of = recordings.length > 1 ? ` of ${recordingName(recordings, one.recording, 24)}` : "";
    return `${one.stack in STACKS ? `${STACKS[one.stack]} ` : ""}${one.number}${of}`;
  }

  /** Controls for what there is to choose now. */
  function fill() {
    const { heads } = layers[now.layer];
    const each = Array.from({ length: heads }, (_, head) => /** @type {[string, string]} */ ([String(head), String(head)]));
    /** @type {[string, string][]} */
    const more = [["layer", "mean of all"], ...(isCross ? [] : [/** @type {[string, string]} */ (["rollout", "rollout up to this layer"])])];
    const fresh = [
      dropdown("Layer", layers.map((one, i) => [String(i), layerName(one)]), String(now.layer), (value) => turn(Number(value))),
      dropdown("Head", [...each, ...more], now.by === "head" ? String(now.head) : now.by, (value) => {
        if (Object.hasOwn(WAYS, value)) now.by = value;
        else Object.assign(now, { by: "head", head: Number(value) });
        again();
      }),
      dropdown("Shade", Object.entries(WAYS[now.by]).map(([way, [name]]) => /** @type {[string, string]} */ ([way, name])), now.way, (value) => {
        now.way = value;
        if (isCross) now.token = null;
        again();
      }),
    ];
    fresh.forEach((one, i) => {
      if (bars[i].contains(/** @type {Document | ShadowRoot} */ (view.getRootNode()).activeElement)) {
        // What has the focus stays; its options are the same, or somebody just chose among them.
        Object.assign(/** @type {HTMLSelectElement} */ (bars[i].querySelector("select")), { value: one.querySelector("select")?.value });
        return;
      }
      bars[i].replaceWith(one);
      bars[i] = one;
    });
  }

  /** Another layer: of the same text in place, else from the beginning. @param {number} to */
  function turn(to) {
    const other = layers[to];
    const isSame = ["recording", "stack", "is_cross", "items", "queries", "keys"].every((name) => other[name] === layer[name]);
    const head = Math.min(now.head, other.heads - 1);
    if (isSame) {
      Object.assign(now, { layer: to, head });
      again();
      return;
    }
    const { token, ...rest } = state();
    const isThere = token !== undefined && other.is_cross === isCross && token < Math.min(other.queries, other.keys);
    page.go("text", { ...rest, layer: to, head, item: Math.min(now.item, other.items - 1), ...(isThere ? { token } : {}) });
  }

  function again() {
    fill();
    page.saveState(state());
    look();
  }

  /** @param {number} paper @param {number} at */
  function choose(paper, at) {
    if (isCross) now.way = paper ? "from" : "to";
    now.token = at;
    again();
  }

  /* What is shown */

  /** The path to request, and what to take from the answer. */
  function question(of = now) {
    const { layer: number, item, head, by, way, token } = of;
    const isRow = way === "to";
    const at = isRow ? token - before : token;
    const { queries, keys } = layers[number];
    const line = isRow ? "row" : "column";
    if (by !== "rollout" && queries <= side && keys <= side) {
      const path = by === "head" ? `tile/${number}/${item}/${head}/0/0/0` : `mean/${number}/${item}/0/0`;
      const take = (values) => (isRow ? values.subarray(at * keys, (at + 1) * keys) : Float32Array.from({ length: queries }, (_, i) => values[i * keys + token]));
      return { path, take };
    }
    const names = { head: `${line}/${number}/${item}/${head}/${at}`, layer: `layer-${line}/${number}/${item}/${at}`, rollout: `rollout-${line}/${number}/${item}/${token}` };
    return { path: names[by], take: (values) => values };
  }

  async function look() {
    stop.abort();
    if (now.token === null || (now.way === "to" && now.token < before)) {
      weights = null;
      each?.hide();
      tell(now.token === null ? CHOOSE() : "What this word attends to was not recorded");
      paint();
      return;
    }
    stop = new AbortController();
    const { signal: mine } = stop;
    signal.addEventListener("abort", () => stop.abort(), { once: true, signal: mine });
    const slow = setTimeout(() => setStatus("Computing …"), 150);
    try {
      show(await line(now, mine), question().path);
      showEach();
    } catch (error) {
      if (mine.aborted) return;
      weights = null;
      tell(error.message);
      paint();
    } finally {
      clearTimeout(slow);
    }
  }

  /** A weight for each word of the text that is shaded. @param {typeof now} of @param {AbortSignal} mine @returns {Promise<Float32Array>} */
  async function line(of, mine) {
    const { path, take } = question(of);
    const answer = known.get(path) ?? (await source.numbers(path, mine)).values;
    if (/^(tile|mean)/.test(path)) known.set(path, answer);
    const values = take(answer);
    if (of.way === "to" || !before) return values;
    const whole = new Float32Array(layer.keys);
    whole.set(values, before);
    return whole;
  }

  /** Below a short text, the same of each head. */
  function showEach() {
    const { layer: number, way, by, head, token } = now;
    const title = `${named(clicked().words, token)} ${WAYS.head[way][1]} … in each head of layer ${layerName(layers[number])}`;
    each?.show(title, layers[number].heads, by === "head" ? head : -1, (one, mine) => line({ ...now, by: "head", head: one }, mine));
  }

  /** @param {Float32Array} values @param {string} path */
  function show(values, path) {
    wanted = new Set([canonicalPath(path)]);
    weights = values;
    most = weights.reduce((top, value) => Math.max(top, value), 0) || 1;
    const { way, by, token } = now;
    const some = shaded().words;
    const names = strongest(weights, NAMED).map((at) => `${named(some, at)} ${percent(weights[at])}`).join(", ") || "nothing";
    const where = { head: "", layer: `, on average over the heads of layer ${layerName(layers[now.layer])}`, rollout: `, after layer ${layerName(layers[now.layer])}` }[by];
    tell(`${named(clicked().words, token)} ${WAYS[by][way][1]} ${names}${where}`);
    paint();
  }

  /** The text that is shaded. */
  function shaded() {
    return isCross && now.way === "to" ? texts[1] : texts[0];
  }

  function clicked() {
    return isCross && now.way === "from" ? texts[1] : texts[0];
  }

  /** @param {string[]} some @param {number} at */
  function named(some, at) {
    return `“${truncate(some[at], 24)}” (${at})`;
  }

  /** @param {string} what */
  function tell(what) {
    summary = what;
    setStatus(what);
  }

  /** @param {number} paper @param {number | null} at */
  function point(paper, at) {
    if (at === null) {
      if (isPointed) setStatus(summary);
      isPointed = false;
    } else {
      isPointed = true;
      const isShaded = weights !== null && texts[paper] === shaded();
      setStatus(`${named(texts[paper].words, at)}${isShaded ? `: ${percent(weights[at])}` : ""}`);
    }
  }

  function paint() {
    const top = topOf();
    const partOf = now.scale === "log" ? (value) => share(value, top, true) : (value) => SCALES[now.scale](value / top);
    const looks = (at) => {
      const value = weights[at];
      if (value === 0) return { paper: "", ink: "var(--faint)", label: "0 %" };
      return { ...shade(partOf(value), theme.table), label: percent(value) };
    };
    texts.forEach((paper) => {
      const isChosen = now.token !== null && paper === clicked();
      paper.paint(weights !== null && paper === shaded() ? looks : () => null, isChosen ? now.token : -1);
    });
    scale();
  }

  /** The weight with the darkest or brightest shade. */
  function topOf() {
    return now.scale === "full" ? 1 : most;
  }

  function scale() {
    if (weights === null) {
      legend.replaceChildren();
      return;
    }
    const canvas = createElement("canvas", { width: WIDE, height: 1, data: { "aria-hidden": "true" } });
    const pen = context2d(canvas);
    for (let i = 0; i < WIDE; i++) {
      pen.fillStyle = shade(i / (WIDE - 1), theme.table).paper;
      pen.fillRect(i, 0, 1, 1);
    }
    const top = topOf();
    const [low, middle] = { full: [0, 1 / 4], linear: [0, top / 2], root: [0, top / 4], log: [least(top), Math.sqrt(least(top) * top)] }[now.scale];
    legend.replaceChildren(
      createElement("span", { textContent: now.scale === "log" ? `≤ ${percent(low)}` : percent(low) }),
      createElement("span", { className: "ramp" }, canvas, createElement("span", { textContent: percent(middle) })),
      createElement("span", { textContent: now.scale === "full" ? "100 %" : percent(top) }),
      createElement("span", { textContent: `strongest: ${percent(most)}` }),
      createElement("span", { className: "unseen", textContent: "0 %: no attention" }),
    );
  }

  function csv() {
    if (weights === null) throw new Error("select a word first");
    return [["position", "token", "weight"], ...shaded().words.map((word, i) => [i, word, weights[i]])];
  }

  /* Finding */

  /** @param {number} way */
  function seekNext(way) {
    const text = seek.value.trim();
    const paper = clicked();
    if (text !== places.wanted || paper !== places.paper) places = { wanted: text, paper, found: paper.find(text), at: way > 0 ? -1 : 0 };
    const { found: all } = places;
    if (!all.length) {
      paper.mark(0, 0);
      setStatus(text ? `“${text}” was not found` : summary);
      return;
    }
    places.at = (places.at + way + all.length) % all.length;
    const [first, end] = all[places.at];
    paper.mark(first, end);
    paper.move(first);
    paper.reveal(first);
    setStatus(`“${text}”: match ${(places.at + 1).toLocaleString()} of ${all.length.toLocaleString()}${weights && paper === shaded() ? `, ${percent(weights[first])}` : ""}`);
  }
}
