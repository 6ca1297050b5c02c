// A lesson that is being changed: undo, redo, reset, and what an address says of it.
import { difference, pack, problem, randomLesson, unpack, usualScale, whole } from "./lesson_document.js";

/** @typedef {import("./lesson_document.js").Lesson} Lesson */
/** @typedef {{lesson: Lesson, drawn: Parameters<typeof randomLesson>[0] | null}} Version a lesson, and how it was drawn by a seed, if it was */

const MANY = 200; // versions that can be undone

/** The lesson that a version was changed from. @param {Version} version @param {Lesson} example */
const baseOf = (version, example) => (version.drawn ? randomLesson(version.drawn) : example);
const isSame = (one, other) => JSON.stringify(difference(one)) === JSON.stringify(difference(other));

export class LessonState {
  #example;
  #version;
  /** @type {Version[]} */
  #past = [];
  /** @type {Version[]} */
  #future = [];
  #merge = "";
  head = 0;

  /** @param {Lesson} example @param {Version} start */
  constructor(example, start) {
    this.#example = example;
    this.#version = start;
  }

  get lesson() { return this.#version.lesson; }
  get drawn() { return this.#version.drawn; }
  get canUndo() { return this.#past.length > 0; }
  get canRedo() { return this.#future.length > 0; }
  get isChanged() { return this.drawn !== null || !isSame({ ...this.lesson, speaker: 0 }, { ...this.#example, speaker: 0 }); }

  /** Another version; those with the same name in a row are one to undo. @param {Lesson} lesson @param {string} merge */
  change(lesson, merge = "", drawn = this.drawn) {
    if (drawn === this.drawn && isSame(lesson, this.lesson)) return;
    if (!merge || merge !== this.#merge) this.#past.push(this.#version);
    this.#merge = merge;
    this.#version = { lesson, drawn };
    this.#future = [];
    if (this.#past.length > MANY) this.#past.shift();
    const last = this.#past.at(-1);
    if (last && last.drawn === drawn && isSame(last.lesson, lesson)) {
      this.#past.pop();
      this.#merge = "";
    }
    this.head = Math.min(this.head, lesson.heads - 1);
  }

  /** Another word speaks: nothing to undo. @param {number} speaker */
  speak(speaker) {
    this.#version = { ...this.#version, lesson: { ...this.lesson, speaker } };
  }

  undo() { this.#step(this.#past, this.#future); }
  redo() { this.#step(this.#future, this.#past); }
  reset() {
    if (this.isChanged) this.change({ ...this.#example, speaker: Math.min(this.lesson.speaker, this.#example.tokens.length - 1) }, "", null);
  }

  #step(from, to) {
    const version = from.pop();
    if (!version) return;
    to.push(this.#version);
    this.#version = version;
    this.#merge = "";
    this.head = Math.min(this.head, this.lesson.heads - 1);
  }

  /** Numbers and choices of the lesson under the names of Steps.now. */
  get now() {
    const state = this;
    const set = (more, merge) => state.change({ ...state.lesson, ...more }, merge);
    return {
      get query() { return state.lesson.speaker; },
      set query(i) { state.speak(i); },
      get scale() { return state.lesson.scale ?? usualScale(state.lesson); },
      set scale(value) { set({ scale: Math.abs(value / usualScale(state.lesson) - 1) < 1e-9 ? null : value }, "scale"); },
      get temperature() { return state.lesson.temperature; },
      set temperature(value) { set({ temperature: value }, "temperature"); },
      get rule() { return typeof state.lesson.mask === "string" ? state.lesson.mask : "hand"; },
      set rule(value) { set({ mask: value }); },
      get width() { return Math.min(state.lesson.window, state.lesson.tokens.length); },
      set width(value) { set({ window: value }, "width"); },
    };
  }

  /** What an address says: how it was drawn, what everybody understands, and whatever else is another, together. @returns {Promise<UrlState>} */
  async toState() {
    const { lesson, drawn } = this;
    const { scale, temperature, mask, window, speaker, ...more } = difference(lesson, baseOf(this.#version, this.#example));
    if (typeof mask === "object") more.mask = mask;
    if (scale === null) more.scale = null;
    const how = () => {
      const { words, source, positions, ...sizes } = /** @type {NonNullable<Version["drawn"]>} */ (drawn);
      return { words: words.join(" "), ...(source ? { source: source.join(" ") } : {}), ...sizes, positions: Number(positions) };
    };
    return {
      ...(drawn ? how() : {}),
      query: lesson.speaker,
      ...(scale ? { scale } : {}),
      ...(temperature === undefined ? {} : { temperature }),
      ...(typeof mask === "string" ? { mask } : {}),
      ...(lesson.mask === "window" ? { width: lesson.window } : {}),
      ...(Object.keys(more).length ? { with: await pack(more) } : {}),
    };
  }
}

/** The state that an address asks for, and why not all of it could be had. @param {Lesson} example @param {URLSearchParams} params */
export async function readState(example, params) {
  let drawn = null;
  let complaint = "";
  if (params.get("words")?.trim()) {
    const words = (name) => (params.get(name) ?? "").trim().split(/\s+/).filter(Boolean).slice(0, 64);
    const whole = (name, most, usual) => { const text = params.get(name) ?? ""; return /^\d{1,10}$/.test(text) && Number(text) <= most ? Number(text) : usual; };
    const size = (name, usual) => Math.max(1, whole(name, 64, usual));
    drawn = {
      words: words("words"), source: params.get("source")?.trim() ? words("source") : null, width: size("width", 4), size: size("size", 2), heads: size("heads", 1),
      seed: whole("seed", 2 ** 32 - 1, 0), form: params.get("form") === "linear" ? "linear" : "parameters", positions: params.get("positions") !== "0",
    };
  }
  const base = drawn ? randomLesson(drawn) : example;
  const asked = { ...base };
  const given = params.get("with");
  if (given) {
    try {
      Object.assign(asked, await unpack(given));
    } catch {
      complaint = "The changes in the address cannot be read";
    }
  }
  for (const name of ["scale", "temperature"]) {
    const value = Number(params.get(name) ?? Number.NaN);
    if (value >= 1e-6 && value <= 1e6) asked[name] = value;
  }
  const rule = params.get("mask");
  if (rule && ["none", "causal", "window"].includes(rule)) asked.mask = rule;
  const width = Number(params.get("width"));
  if (!drawn && Number.isInteger(width) && width >= 1) asked.window = width;
  let lesson = whole(asked);
  const query = Number(params.get("query") ?? Number.NaN);
  if (Number.isInteger(query) && query >= 0 && query < lesson.tokens?.length) lesson.speaker = query;
  const wrong = problem(lesson);
  if (wrong) {
    complaint = `The changes in the address do not fit: ${wrong}`;
    lesson = base;
  }
  return { state: new LessonState(example, { lesson, drawn }), complaint };
}
