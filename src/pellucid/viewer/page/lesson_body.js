// A lesson on the page: the tokens, the steps, and a line that explains one number. In the Lesson view and at stations of Learn.
import { button, createElement } from "./elements.js";
import { Grids, paint } from "./grids.js";
import { difference } from "./lesson_document.js";
import { sections } from "./sections.js";
import { weight } from "./sentences.js";
import { oneOf } from "./sliders.js";
import { ofLesson, Steps } from "./steps.js";
import { throttle } from "./url_state.js";

const HINT = `${globalThis.matchMedia?.("(hover: none)").matches ? "Tap a number" : "Point at a number, or move to one with Tab and the arrow keys,"} to see how it is computed.`;

/**
 * @param {Page} page
 * @param {{
 *   state?: import("./lesson_state.js").LessonState, given?: any, start?: (steps: Steps) => void, example?: string, wheel?: Record<string, number>,
 *   save: (steps: Steps) => void, turn?: (from: number, text: string, title: string) => Node, extra?: () => Node[], only?: string[] | null,
 * }} options a lesson that can be changed, or the given numbers of a recording
 */
export function lessonBody(page, { state, given: recorded, start, example, wheel = {}, save, turn, extra = () => [], only = null }) {
  const { signal } = page;
  const ui = { form: "parameters" };
  let steps = state ? new Steps(ofLesson(state.lesson, state.head), state.now) : new Steps(recorded);
  start?.(steps);
  let shape = "";
  let following = []; // what follows every change, apart from the numbers in tables
  let pointed = null; // the name of the number that is explained
  let wrong = ""; // what was typed
  const follow = (call) => { following.push(call); };
  const saveState = throttle(() => { if (!signal.aborted) save(steps); });
  const body = createElement("div", { className: "lesson" });
  const words = createElement("p", { className: `origin${state ? "" : " long"}`, tabIndex: 0, data: { role: "group", "aria-live": "polite", "aria-label": "How the number is computed" } });
  const fields = state && {
    has: (name) => steps.place(name) !== null,
    text: (name) => steps.editable(name),
    number: (name) => steps.number(name),
    set: (name, text, entry) => change(steps.changed(name, text), entry),
    complain,
  };
  const grids = new Grids(body, { follow, rebuild: build, point: explain, signal, fields });
  page.theme.onChange(shadeAll);
  if (state) page.view.getRootNode().addEventListener("keydown", (event) => undoByKey(/** @type {KeyboardEvent} */ (event)), { signal });

  /** The lesson is another now. @param {import("./lesson_document.js").Lesson} lesson @param {string} [merge] @param {any} [drawn] how, if by a seed */
  function change(lesson, merge, drawn) {
    state?.change(lesson, merge, drawn);
    changed();
  }

  /** Work everything out again; where other tables are needed, build them. */
  function changed() {
    if (!state) { refresh(); return; }
    const given = ofLesson(state.lesson, state.head);
    if (shapeOf(state) === shape) {
      Object.assign(steps.given, given);
      refresh();
      return;
    }
    steps = new Steps(given, state.now);
    rebuild();
  }

  /** Build all anew, and leave the focus where it was. */
  function rebuild() {
    const focus = focusIn(body);
    const scrolled = page.view.scrollTop;
    build();
    focus();
    page.view.scrollTop = scrolled;
  }

  function build() {
    following = [];
    grids.clear();
    shape = state ? shapeOf(state) : "";
    const all = { steps, grids, follow, changed, rebuild, change, complain, state, ui, example, wheel };
    body.replaceChildren(strip(), ...sections(all), words);
    /** @type {NodeListOf<HTMLElement>} */
    const shown = body.querySelectorAll("section[data-step]");
    body.classList.toggle("some", only !== null);
    for (const one of shown) one.hidden = only !== null && !only.includes(one.dataset.step ?? "");
    refresh();
    centre();
  }

  /** The tokens: which of them asks, and how much of its attention each gets. */
  function strip() {
    const { given, now, usual } = steps;
    const chip = (name, word) => createElement(name, { className: "word" }, createElement("b", { textContent: word }), createElement("small", {}));
    const queries = given.tokens.map((word, i) => Object.assign(chip("button", word), { title: `${given.names[i]} attends` }));
    const row = oneOf(follow, "The token that attends", "words", queries, () => now.query, (i) => {
      now.query = i;
      refresh();
      centre();
    });
    const keys = given.isSelf ? queries : given.keys.map((word) => chip("span", word));
    follow(() => keys.forEach((one, j) => { one.lastChild.textContent = steps.isHidden(j) ? "–" : weight(steps.found.weights[j]); }));
    const last = given.first + given.tokens.length;
    const ways = state ? versions() : [button("Reset", "Restore scale, temperature and mask", () => { Object.assign(now, usual); refresh(); })];
    if (!state) follow(() => { ways[0].disabled = !steps.isChanged; });
    return createElement("div", { className: "strip" },
      ...(turn && given.first > 0 ? [turn(Math.max(0, given.first - 1), "◂", "Earlier tokens")] : []),
      createElement("div", { className: "both" }, row, ...(given.isSelf ? [] : [createElement("div", { className: "words", tabIndex: 0, data: { role: "group", "aria-label": "The tokens attended to" } }, createElement("span", { className: "faint", textContent: "attends to" }), ...keys)])),
      ...(turn && last < given.of ? [turn(last, "▸", "Later tokens")] : []),
      ...(given.heads > 1 ? [heads(given.heads)] : []),
      ...extra(), ...ways);
  }

  /** Undo, redo and reset. */
  function versions() {
    const ways = [["↶", "Undo (Ctrl-Z)", "undo", "canUndo"], ["↷", "Redo (Ctrl-Y)", "redo", "canRedo"], ["Reset", "Back to the numbers of the example", "reset", "isChanged"]].map(([text, title, call, can]) => {
      const one = button(text, title, () => { state?.[call](); changed(); });
      follow(() => { one.disabled = !state?.[can]; });
      return one;
    });
    return ways;
  }

  function heads(count) {
    const buttons = Array.from({ length: count }, (_, i) => createElement("button", { textContent: `head ${i}` }));
    return oneOf(follow, "The head that is shown", "segments", buttons, () => state?.head ?? 0, (i) => {
      if (state) state.head = i;
      changed();
    });
  }

  /** @param {KeyboardEvent} event */
  function undoByKey(event) {
    const target = event.composedPath()[0];
    const isTyping = target instanceof HTMLInputElement && !["range", "checkbox"].includes(target.type);
    if (!(event.ctrlKey || event.metaKey) || isTyping || !state) return;
    const key = event.key.toLowerCase();
    if (key === "y" || (key === "z" && event.shiftKey)) state.redo();
    else if (key === "z") state.undo();
    else return;
    event.preventDefault();
    changed();
  }

  /** Bring the query into sight, among the tokens and in the tables. */
  function centre() {
    for (const [row, one] of [
      [body.querySelector(".words"), body.querySelector(".words [aria-checked=true]")],
      [body.querySelector(".scroller.across"), grids.places(`score.${steps.who.own ?? 0}`)[0]],
    ]) row.scrollLeft = one.offsetLeft - row.offsetLeft - (row.clientWidth - one.offsetWidth) / 2;
  }

  function refresh() {
    wrong = "";
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
    const chips = body.querySelectorAll(steps.given.isSelf ? ".words button" : ".words span.word");
    chips.forEach((one, j) => paint(one, shades.get(`weight.${j}`) ?? 0, table));
  }

  /** What is wrong with what was typed. @param {string} message */
  function complain(message) {
    wrong = message;
    words.replaceChildren(createElement("span", { className: "wrong", textContent: message }));
  }

  /** @param {string | null} name */
  function explain(name) {
    pointed = name;
    if (name === null) {
      grids.light(null, []);
      if (wrong) return;
      words.replaceChildren(steps.isChanged ? "Changed by hand. Reset restores the original numbers." : state ? `${HINT} Framed numbers can be typed into.` : HINT);
      return;
    }
    const { of, way, note, from, isLong } = steps.origin(name);
    grids.light(name, from);
    const result = createElement("b", { textContent: steps.text(name) });
    const parts = isLong ? [result, " = ", way] : way ? [way, " = ", result] : [result];
    words.replaceChildren(createElement("b", { textContent: of }), " = ", ...parts, note ? createElement("span", { className: "faint", textContent: `, ${note}` }) : "");
    words.scrollTop = 0;
  }

  return {
    element: body, build, change,
    get steps() { return steps; },
    /** The names of the steps that are shown; null shows all. */
    get only() { return only; },
    set only(names) { only = names; },
    csv: () => grids.rows((name) => steps.number(name)),
    json: () => `${JSON.stringify(difference(steps.given.lesson), null, 1)}\n`,
  };
}

/** What the tables depend on: everything but the numbers. */
function shapeOf({ lesson, head }) {
  return JSON.stringify([head, ...Object.entries(lesson).map(([name, value]) => {
    if (name === "mask") return typeof value === "string" ? "rule" : "matrix";
    if (["scale", "temperature", "window", "speaker", "title", "about"].includes(name)) return null;
    return Array.isArray(value) && Array.isArray(value[0]) ? [value.length, value[0].length] : value;
  })]);
}

/** Keep the focus on the same thing though it is made anew. @param {HTMLElement} body @returns {() => void} */
function focusIn(body) {
  const named = (one) => (one.dataset.cell ? `cell ${one.dataset.cell}` : `${one.tagName} ${one.title || one.getAttribute("aria-label") || one.textContent}`);
  const active = /** @type {HTMLElement | null} */ (/** @type {Document | ShadowRoot} */ (body.getRootNode()).activeElement);
  if (!active || !body.contains(active)) return () => {};
  const name = named(active);
  const group = active.closest("[role=radiogroup]")?.getAttribute("aria-label");
  return () => {
    const all = /** @type {HTMLElement[]} */ ([...body.querySelectorAll(group ? `[aria-label="${group}"] [aria-checked=true]` : "button, input, select, td[data-cell]")]);
    (group ? all[0] : all.find((one) => named(one) === name))?.focus({ preventScroll: true });
  };
}
