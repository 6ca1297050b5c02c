// The Lesson view: the arithmetic of one query, step by step. Every number of an example can be changed; of a recording, scale, temperature and mask.
import { button, createElement, dropdown, headDropdown, itemDropdown } from "./elements.js";
import { lessonBody } from "./lesson_body.js";
import { difference, fromRecording, pack, problem, whole } from "./lesson_document.js";
import { readState } from "./lesson_state.js";
import { ofHead } from "./steps.js";
import { trainedExample } from "./trained.js";
import { integerParam } from "./url_state.js";

const MOST = 64; // tokens of one answer: see lesson.py
const LARGEST = 1e6; // of a scale or temperature in an address
const LONGEST = 60_000; // letters of what an address says was changed
let scrolled = 0; // how far down the numbers that follow these are to be shown

/** @param {Page} page */
export async function lesson(page) {
  const { about, params, source, signal, view, controls } = page;
  const { examples, wheel, trained } = await source.json("examples", signal);
  signal.throwIfAborted();
  const asked = params.has("layer") ? undefined : trained.find((one) => one.name === params.get("example"));
  const example = params.has("layer") ? undefined : examples.find((one) => one.name === params.get("example")) ?? examples[0];
  const isOwn = !asked && example && (params.has("with") || params.has("words"));
  controls.append(dropdown("Numbers from", [
    ...(isOwn ? [/** @type {[string, string]} */ (["", "a lesson of your own"])] : []),
    ...examples.map((one) => [one.name, one.title]),
    ...trained.filter((one) => source.code || one === asked).map((one) => [one.name, one.title]), // no file can work out another
    ...(about.layers.length ? [["recording", "this recording"]] : []),
  ], isOwn ? "" : (asked ?? example)?.name ?? "recording", (value) => (value === "recording" ? goToRecording() : go({ example: value }))), button("Open …", "Open a lesson: a JSON file of Export, or of pellucid explain --save", () => file.click()));
  const file = createElement("input", { type: "file", accept: ".json,application/json", hidden: true });
  file.addEventListener("change", open);
  controls.append(file);
  const body = asked ? trainedExample(page, asked, go) : example ? await ofExample() : await ofRecording();
  signal.throwIfAborted();
  view.append(body.element);
  body.build();
  [view.scrollTop, scrolled] = [scrolled, 0];

  /** Other numbers, at the step that is looked at now. @param {UrlState} to */
  function go(to) {
    scrolled = view.scrollTop;
    page.go("lesson", to);
  }

  /** A lesson as what differs from the example. @param {import("./lesson_document.js").Lesson} lesson */
  async function show(lesson) {
    const { speaker, ...more } = difference(lesson, whole(examples[0].lesson));
    go({ example: examples[0].name, query: lesson.speaker, with: await pack(more) });
  }

  async function open() {
    try {
      const lesson = whole(JSON.parse(await file.files?.[0].text() ?? ""));
      const wrong = problem(lesson);
      if (wrong) throw new Error(wrong);
      await show(lesson);
    } catch (error) {
      page.setStatus(`The file holds no lesson: ${error.message}`);
    }
  }

  /** The head and the word that have most to show. */
  async function goToRecording() {
    const { telling } = await source.json("telling/0", signal).catch(() => ({ telling: null }));
    if (!signal.aborted) go(telling ?? { layer: 0, head: 0 });
  }

  async function ofExample() {
    const { state, complaint } = await readState(whole(example.lesson), params);
    const made = lessonBody(page, { state, wheel, example: example.name, save });
    page.setExport({ csv: made.csv, json: made.json });
    page.setStatus([complaint, ...state.lesson.about].filter(Boolean).join(" · "));
    let wasChanged = false;
    return made;

    async function save() {
      const said = await state.toState();
      if (signal.aborted) return;
      const isLong = String(said.with ?? "").length > LONGEST;
      if (isLong) delete said.with;
      page.saveState({ example: example.name, ...said });
      if (state.canUndo || wasChanged) page.setStatus([...state.lesson.about, ...(state.canUndo ? ["changed by hand"] : []), ...(isLong ? ["too much for the address: Export saves it as JSON"] : [])].join(" · "));
      wasChanged = state.canUndo;
    }
  }

  async function ofRecording() {
    const place = placeOf(params, about.layers);
    const { layer, item, head, around } = place;
    const answer = await source.json(`lesson/${layer}/${item}/${head}?token=${around ?? 0}`, signal);
    const given = ofHead(answer, about.layers[layer]);
    const last = given.tokens.length - 1;
    /** @param {import("./steps.js").Steps} steps */
    const start = ({ now }) => {
      now.query = Math.min(Math.max(0, params.has("token") ? place.token - given.first : answer.speaker), last);
      for (const name of ["scale", "temperature", "width"]) {
        const value = Number(params.get(name) ?? Number.NaN);
        if (value >= 1 / LARGEST && value <= LARGEST) now[name] = value;
      }
      now.width = Math.min(Math.ceil(now.width), given.keys.length);
      if (given.rules.some(([rule]) => rule === params.get("mask"))) now.rule = params.get("mask");
    };
    /** What the address says. @param {import("./steps.js").Steps} steps */
    const state = ({ now, usual }) => {
      const changed = (name, as = name) => (now[name] === usual[name] ? {} : { [as]: now[name] });
      return { ...place, token: given.first + now.query, ...changed("scale"), ...changed("temperature"), ...changed("rule", "mask"), ...(now.rule === "window" ? { width: now.width } : {}) };
    };
    const turn = (from, text, title) => button(text, title, () => go({ ...state(made.steps), token: from, around: from }));
    const changeable = () => (fromRecording(given, 0) ? [button("Change its numbers", "Make a lesson of it, in which every number can be changed", () => {
      const lesson = fromRecording(given, made.steps.now.query);
      if (lesson) show(lesson);
    })] : []);
    const made = lessonBody(page, { given, start, turn, extra: changeable, save: (steps) => page.saveState(state(steps)) });
    const other = (more) => go({ layer, item, head, token: state(made.steps).token, ...more });
    controls.append(
      headDropdown(about, place, (newLayer, newHead) => other({ layer: newLayer, head: newHead })),
      itemDropdown(about.layers, layer, item, (newItem) => other({ item: newItem })),
    );
    page.setExport({ csv: made.csv });
    page.setStatus(given.about.join(" · "));
    return made;
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
