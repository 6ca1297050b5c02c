// The Lesson view: the arithmetic of one query, step by step. Pointing at a number highlights its inputs; sliders change it.
import { percent } from "./colours.js";
import { button, createElement, dropdown, headDropdown, itemDropdown } from "./elements.js";
import { Grids, paint } from "./grids.js";
import { sections } from "./sections.js";
import { oneOf } from "./sliders.js";
import { ofExample, ofHead, Steps } from "./steps.js";
import { integerParam, throttle } from "./url_state.js";

const MOST = 64; // tokens of one answer: see lesson.py
const LARGEST = 1e6; // of a scale or temperature in an address
let scrolled = 0; // how far down the numbers that follow these are to be shown

/** @param {Page} page */
export async function lesson(page) {
  const { about, params, source, signal, view, controls } = page;
  const { examples } = await source.json("examples", signal);
  signal.throwIfAborted();
  const example = params.has("layer") ? undefined : examples.find((one) => one.name === params.get("example")) ?? examples[0];
  /** @type {any} */
  const place = example ? { example: example.name } : placeOf(params, about.layers);
  const { layer, item, head, around } = place;
  let steps = null;
  // Where one is: at an example's query or a recording's token, as far as it is known.
  const here = () => (example ? { ...place, query: steps.now.query } : { ...place, token: steps ? steps.given.first + steps.now.query : place.token });

  controls.append(dropdown("Numbers from", [
    ...examples.map((one) => [one.name, one.title]),
    ...(about.layers.length ? [["recording", "this recording"]] : []),
  ], example?.name ?? "recording", (value) => go(value === "recording" ? { layer: 0, head: 0 } : { example: value })));
  if (!example) {
    const other = (more) => go({ layer, item, head, token: here().token, ...more });
    controls.append(
      headDropdown(about, place, (newLayer, newHead) => other({ layer: newLayer, head: newHead })),
      itemDropdown(about.layers, layer, item, (newItem) => other({ item: newItem })),
    );
  }

  const given = example ? ofExample(example) : ofHead(await source.json(`lesson/${layer}/${item}/${head}?token=${around ?? 0}`, signal), about.layers[layer]);
  signal.throwIfAborted();
  steps = new Steps(given);
  const { now, usual } = steps;
  start();

  let following = []; // what follows every change, apart from the numbers in tables
  let pointed = null; // the name of the number that is explained
  const follow = (call) => { following.push(call); };
  const saveState = throttle(() => page.saveState(state()));
  const body = createElement("div", { className: "lesson" });
  const words = createElement("p", { className: `origin${example ? "" : " long"}`, tabIndex: 0, data: { role: "group", "aria-live": "polite", "aria-label": "How the number is computed" } });
  const grids = new Grids(body, { follow, rebuild: build, point: explain, signal });
  view.append(body);
  build();
  [view.scrollTop, scrolled] = [scrolled, 0];
  page.theme.onChange(shadeAll);
  page.setExport({ csv: () => grids.rows((name) => steps.number(name)) });
  page.setStatus(given.about.join(" · "));

  /** Other numbers, at the step that is looked at now. @param {UrlState} to */
  function go(to) {
    scrolled = view.scrollTop;
    page.go("lesson", to);
  }

  /** Begin as the address says. */
  function start() {
    const last = given.tokens.length - 1;
    now.query = example ? integerParam(params, "query", last, example.speaker) : Math.min(Math.max(0, place.token - given.first), last);
    for (const name of ["scale", "temperature", "width"]) {
      const value = Number(params.get(name) ?? Number.NaN);
      if (value >= 1 / LARGEST && value <= LARGEST) now[name] = value;
    }
    now.width = Math.min(Math.ceil(now.width), given.keys.length);
    if (given.rules.some(([rule]) => rule === params.get("mask"))) now.rule = params.get("mask");
  }

  /** What the address says of this. */
  function state() {
    const changed = (name, as = name) => (now[name] === usual[name] ? {} : { [as]: name === "rule" ? now.rule : Number(now[name].toPrecision(6)) });
    return { ...here(), ...changed("scale"), ...changed("temperature"), ...changed("rule", "mask"), ...(now.rule === "window" ? { width: now.width } : {}) };
  }

  function build() {
    following = [];
    grids.clear();
    body.replaceChildren(strip(), ...sections({ steps, grids, follow, changed: refresh, example }), words);
    refresh();
    centre();
  }

  /** The tokens: which of them asks, and how much of its attention each gets. */
  function strip() {
    const chip = (name, word) => createElement(name, { className: "word" }, createElement("b", { textContent: word }), createElement("small", {}));
    const queries = given.tokens.map((word, i) => Object.assign(chip("button", word), { title: `${given.names[i]} attends` }));
    const row = oneOf(follow, "The token that attends", "words", queries, () => now.query, (i) => {
      now.query = i;
      refresh();
      centre();
    });
    const turn = (from, text, title) => button(text, title, () => go({ ...state(), token: from, around: from }));
    const keys = given.isSelf ? queries : given.keys.map((word) => chip("span", word));
    const reset = button("Reset", "Restore scale, temperature and mask", () => { Object.assign(now, usual); refresh(); });
    follow(() => {
      keys.forEach((one, j) => { one.lastChild.textContent = percent(steps.found.weights[j]); });
      reset.disabled = !steps.isChanged;
    });
    const last = given.first + given.tokens.length;
    return createElement("div", { className: "strip" },
      ...(given.first > 0 ? [turn(Math.max(0, given.first - 1), "◂", "Earlier tokens")] : []),
      createElement("div", { className: "both" }, row, ...(given.isSelf ? [] : [createElement("div", { className: "words", tabIndex: 0, data: { role: "group", "aria-label": "The tokens attended to" } }, createElement("span", { className: "faint", textContent: "attends to" }), ...keys)])),
      ...(last < given.of ? [turn(last, "▸", "Later tokens")] : []),
      reset);
  }

  /** Bring the query into sight, among the tokens and in the tables. */
  function centre() {
    for (const [row, one] of [
      [body.querySelector(".words"), body.querySelector("[aria-checked=true]")],
      [body.querySelector(".scroller.across"), grids.places(`score.${steps.who.own ?? 0}`)[0]],
    ]) row.scrollLeft = one.offsetLeft - row.offsetLeft - (row.clientWidth - one.offsetWidth) / 2;
  }

  function refresh() {
    steps.compute();
    grids.write((name) => steps.text(name));
    following.forEach((call) => call());
    shadeAll();
    explain(grids.places(pointed).length ? pointed : null);
    saveState();
  }

  function shadeAll() {
    const { table } = page.theme;
    const shades = steps.shades();
    for (const [name, part] of shades) grids.places(name).forEach((one) => paint(one, part, table));
    /** @type {NodeListOf<HTMLElement>} */
    const chips = body.querySelectorAll(given.isSelf ? ".words button" : ".words span.word");
    chips.forEach((one, j) => paint(one, shades.get(`weight.${j}`), table));
  }

  /** @param {string | null} name */
  function explain(name) {
    pointed = name;
    if (name === null) {
      grids.light(null, []);
      words.replaceChildren(steps.isChanged ? "Changed by hand. Reset restores the original numbers." : "Point at a number, or move to one with Tab and the arrow keys, to see how it is computed.");
      return;
    }
    const { of, way, note, from, isLong } = steps.origin(name);
    grids.light(name, from);
    const result = createElement("b", { textContent: steps.text(name) });
    const parts = isLong ? [result, " = ", way] : way ? [way, " = ", result] : [result];
    words.replaceChildren(createElement("b", { textContent: of }), " = ", ...parts, note ? createElement("span", { className: "faint", textContent: `, ${note}` }) : "");
    words.scrollTop = 0;
  }
}

/** The query of a recording that the URL asks for. @param {URLSearchParams} params @param {Layer[]} layers */
function placeOf(params, layers) {
  const layer = integerParam(params, "layer", layers.length - 1);
  const { items, heads, queries, keys } = layers[layer];
  const token = integerParam(params, "token", queries - 1);
  // The tokens around one are shown, of which another may be the query: a file holds one answer.
  const around = Math.max(queries, keys) > MOST ? integerParam(params, "around", queries - 1, token) : 0;
  return { layer, item: integerParam(params, "item", items - 1), head: integerParam(params, "head", heads - 1), token, ...(around ? { around } : {}) };
}
