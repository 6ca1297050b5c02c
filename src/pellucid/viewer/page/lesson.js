// The arithmetic of one query, step by step. Pointing at a number lights those it is made of; sliders change it.
import { whole } from "./address.js";
import { percent } from "./colours.js";
import { Grids, paint } from "./grids.js";
import { seldom } from "./looks.js";
import { button, choice, headChoice, itemChoice, made } from "./parts.js";
import { sections } from "./sections.js";
import { oneOf } from "./sliders.js";
import { ofExample, ofHead, Steps } from "./steps.js";

const MOST = 64; // tokens whose numbers come at once: see lesson.py
const LARGEST = 1e6; // of a scale or temperature in an address
let scrolled = 0; // how far down the numbers that follow these are to be shown

export async function lesson(page) {
  const { about, asked, source, signal, view, controls } = page;
  const { examples } = await source.json("examples", signal);
  signal.throwIfAborted();
  const example = asked.has("sheet") ? undefined : examples.find((one) => one.name === asked.get("example")) ?? examples[0];
  const place = example ? { example: example.name } : placeOf(asked, about.sheets);
  const { sheet, item, head, around } = place;
  let steps = null;
  // Where one is: at an example's query or a recording's token, as far as it is known.
  const here = () => (example ? { ...place, query: steps.now.query } : { ...place, token: steps ? steps.given.first + steps.now.query : place.token });

  controls.append(choice("Numbers of", [
    ...examples.map((one) => [one.name, one.title]),
    ...(about.sheets.length ? [["recording", "this recording"]] : []),
  ], example?.name ?? "recording", (value) => go(value === "recording" ? { sheet: 0, head: 0 } : { example: value })));
  if (!example) {
    const other = (more) => go({ sheet, item, head, token: here().token, ...more });
    controls.append(
      headChoice(about.sheets, sheet, head, (newSheet, newHead) => other({ sheet: newSheet, head: newHead }), { recordings: about.recordings }),
      itemChoice(about.sheets, sheet, item, (newItem) => other({ item: newItem })),
    );
  }

  const given = example ? ofExample(example) : ofHead(await source.json(`lesson/${sheet}/${item}/${head}?token=${around ?? 0}`, signal), about.sheets[sheet]);
  signal.throwIfAborted();
  steps = new Steps(given);
  const { now, usual } = steps;
  start();

  let following = []; // what follows every change, apart from the numbers in tables
  let pointed = null; // the name of the number that is explained
  const follow = (call) => { following.push(call); };
  const keep = seldom(() => page.keep(told()));
  const body = made("div", { className: "lesson" });
  const words = made("p", { className: `origin${example ? "" : " long"}`, tabIndex: 0, data: { role: "group", "aria-live": "polite", "aria-label": "Where the number comes from" } });
  const grids = new Grids(body, { follow, rebuild: build, point: explain, signal });
  view.append(body);
  build();
  [view.scrollTop, scrolled] = [scrolled, 0];
  page.theme.onChange(shadeAll);
  page.offer({ csv: () => grids.rows((name) => steps.number(name)) });
  page.say(given.about.join(" · "));

  /** Other numbers, at the step that is looked at now. */
  function go(to) {
    scrolled = view.scrollTop;
    page.go("lesson", to);
  }

  /** Begin as the address says. */
  function start() {
    const last = given.tokens.length - 1;
    now.query = example ? whole(asked, "query", last, example.speaker) : Math.min(Math.max(0, place.token - given.first), last);
    for (const name of ["scale", "temperature", "width"]) {
      const said = Number(asked.get(name) ?? Number.NaN);
      if (said >= 1 / LARGEST && said <= LARGEST) now[name] = said;
    }
    now.width = Math.min(Math.ceil(now.width), given.keys.length);
    if (given.rules.some(([rule]) => rule === asked.get("mask"))) now.rule = asked.get("mask");
  }

  /** What the address says of this. */
  function told() {
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
    const chip = (name, word) => made(name, { className: "word" }, made("b", { textContent: word }), made("small", {}));
    const queries = given.tokens.map((word, i) => Object.assign(chip("button", word), { title: `${given.names[i]} attends` }));
    const row = oneOf(follow, "The token that attends", "words", queries, () => now.query, (i) => {
      now.query = i;
      refresh();
      centre();
    });
    const turn = (from, text, title) => button(text, title, () => go({ ...told(), token: from, around: from }));
    const keys = given.isSelf ? queries : given.keys.map((word) => chip("span", word));
    const reset = button("Reset", "Put scale, temperature and mask back", () => { Object.assign(now, usual); refresh(); });
    follow(() => {
      keys.forEach((one, j) => { one.lastChild.textContent = percent(steps.found.weights[j]); });
      reset.disabled = !steps.isChanged;
    });
    const last = given.first + given.tokens.length;
    return made("div", { className: "strip" },
      ...(given.first > 0 ? [turn(Math.max(0, given.first - 1), "◂", "Earlier tokens")] : []),
      made("div", { className: "both" }, row, ...(given.isSelf ? [] : [made("div", { className: "words", tabIndex: 0, data: { role: "group", "aria-label": "The tokens attended to" } }, made("span", { className: "faint", textContent: "attends to" }), ...keys)])),
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
    grids.write((name) => steps.said(name));
    following.forEach((call) => call());
    shadeAll();
    explain(grids.places(pointed).length ? pointed : null);
    keep();
  }

  function shadeAll() {
    const { table } = page.theme;
    const shades = steps.shades();
    for (const [name, part] of shades) grids.places(name).forEach((one) => paint(one, part, table));
    const chips = body.querySelectorAll(given.isSelf ? ".words button" : ".words span.word");
    chips.forEach((one, j) => paint(one, shades.get(`weight.${j}`), table));
  }

  function explain(name) {
    pointed = name;
    if (name === null) {
      grids.light(null, []);
      words.replaceChildren(steps.isChanged ? "Changed by hand. Reset brings the numbers back." : "Point at a number, or go to one with Tab and the arrow keys, to see where it comes from.");
      return;
    }
    const { of, way, note, from, isLong } = steps.origin(name);
    grids.light(name, from);
    const result = made("b", { textContent: steps.said(name) });
    const parts = isLong ? [result, " = ", way] : way ? [way, " = ", result] : [result];
    words.replaceChildren(made("b", { textContent: of }), " = ", ...parts, note ? made("span", { className: "faint", textContent: `, ${note}` }) : "");
    words.scrollTop = 0;
  }
}

/** Which query of a recording is asked for. */
function placeOf(asked, sheets) {
  const sheet = whole(asked, "sheet", sheets.length - 1);
  const { items, heads, queries, keys } = sheets[sheet];
  const token = whole(asked, "token", queries - 1);
  // Those around one token, while another may ask: a file holds what was asked for once.
  const around = Math.max(queries, keys) > MOST ? whole(asked, "around", queries - 1, token) : 0;
  return { sheet, item: whole(asked, "item", items - 1), head: whole(asked, "head", heads - 1), token, ...(around ? { around } : {}) };
}
