// The Learn view: ten stations from a soft database to generation. At each a guess, the numbers, one thing to change, one's own
// sentence and a check; or, for a class, one of these at a time, large, by keyboard alone.
import { button, createElement } from "./elements.js";
import { lessonBody } from "./lesson_body.js";
import { whole } from "./lesson_document.js";
import { LessonState } from "./lesson_state.js";
import { race } from "./race.js";
import { prose } from "./sections.js";
import { walkRows, walkTables } from "./walk.js";

/** The steps of the lesson that each station is about. */
const STEPS = {
  lookup: ["vectors", "scale", "softmax", "mix"], projections: ["embed", "project"], scores: ["project", "score"], scale: ["scale", "softmax"],
  softmax: ["softmax"], mask: ["mask", "softmax"], heads: ["project", "mix", "heads"], positions: ["words", "embed", "mix"],
};
/** What a lesson on one's own words begins with, at the stations that have one. @type {Record<string, UrlState>} */
const OWN = { projections: {}, scores: {}, scale: { size: 64 }, softmax: {}, mask: { mask: "causal" }, heads: { heads: 3 }, positions: {} };
/** The example that reads it at the stations of trained models. @type {Record<string, string>} */
const OWN_EXAMPLE = { stacks: "verdict", generation: "next" };
/** What else to do there. */
const HERE = {
  lookup: "Here: type other words and numbers into the table above. “All steps” has the words that are looked up.",
  stacks: "Here: type a text into the box at the top of the page (✎), choose the model “translator”, and read. Or let an encoder judge:",
  generation: "Here: type a beginning into the box at the top of the page (✎), choose how many new tokens, and read. Or pick the next token yourself:",
};
/** What is asked for there, and what is done with it. @type {Record<string, [string, string]>} */
const WAYS = { verdict: ["A sentence about a film", "Was it liked?"], next: ["A beginning of your own", "What comes next?"] };
/** A title where no letter can stand lower. @param {string} title */
const plain = (title) => title.replace("d_k", "dₖ");
const PARTS = ["Guess", "See", "Change", "Your own", "Check"];
const STORED = "pellucid-learn";

/** @param {Page} page */
export async function learn(page) {
  const { source, params, signal, view } = page;
  const { stations } = await source.json("stations", signal);
  signal.throwIfAborted();
  const asked = params.get("station") ?? "";
  const at = Math.max(0, stations.findIndex(({ name }, i) => name === asked || String(i + 1) === asked));
  const isClass = params.get("class") === "1";
  const go = (to, part = 0) => page.go("learn", { station: stations[to].name, ...(isClass ? { class: 1, ...(part ? { part } : {}) } : {}) });
  const body = createElement("div", { className: `learn${isClass ? " class" : ""}` });
  const main = createElement("article", {}, createElement("p", { className: "faint", textContent: `Preparing this station …${OWN_EXAMPLE[stations[at].name] ? " A trained model reads for it, which may take a minute the first time." : ""}` }));
  body.append(path(stations, at, go), main);
  view.append(body);
  page.setStatus(`Station ${at + 1} of ${stations.length}: ${plain(stations[at].title)}`);
  const station = await source.json(`station/${at}`, signal);
  signal.throwIfAborted();
  new Stop(page, station, { at, of: stations.length, go, isClass, main });
}

/** The way, with what is done. @param {{name: string, title: string}[]} stations @param {number} at @param {(to: number) => void} go */
function path(stations, at, go) {
  const done = progress();
  return createElement("nav", { data: { "aria-label": "Stations" } }, createElement("ol", {}, ...stations.map(({ name, title }, i) => {
    const isDone = done[name]?.check !== undefined;
    const stop = button("", `${i + 1}. ${plain(title)}${isDone ? ", done" : ""}`, () => go(i));
    stop.append(createElement("span", { className: `dot${isDone ? " done" : ""}`, textContent: isDone ? "✓" : String(i + 1) }), createElement("span", {}, ...prose(title)));
    if (i === at) stop.setAttribute("aria-current", "step");
    return createElement("li", {}, stop);
  })));
}

class Stop {
  #page;
  #station;
  #way;
  /** @type {HTMLElement[]} */
  #parts = [];
  #part = 0;
  /** Choose an answer of the question that is asked: @type {Record<string, (i: number | null) => void>} */
  #answer = {};
  #apply = () => {};
  /** @type {ReturnType<typeof lessonBody> | null} */
  #lesson = null;

  /** @param {Page} page @param {any} station @param {{at: number, of: number, go: (to: number, part?: number) => void, isClass: boolean, main: HTMLElement}} way */
  constructor(page, station, way) {
    this.#page = page;
    this.#station = station;
    this.#way = way;
    const { at, of, go, isClass, main } = way;
    const made = { predict: this.#question("predict"), shown: this.#shown(), check: this.#question("check") };
    this.#parts = [
      part("guess", "Guess first", made.predict),
      part("see", "See", ...made.shown.parts),
      part("change", "Change one thing", ...made.shown.change),
      part("own", "Try your own sentence", ...this.#own()),
      part("check", "Check yourself", made.check),
    ];
    const turn = (to, text, title) => { const one = button(text, title, () => go(to)); one.disabled = to < 0 || to >= of; return one; };
    const places = createElement("p", { className: "places", data: { "aria-hidden": "true" } });
    main.replaceChildren(
      createElement("header", {}, createElement("p", { className: "faint", textContent: `Station ${at + 1} of ${of}` }), createElement("h2", {}, ...prose(station.title)), createElement("p", { className: "idea" }, ...prose(station.idea))),
      ...this.#parts,
      createElement("footer", {}, turn(at - 1, "◂ Previous", "Previous station"), places, turn(at + 1, "Next ▸", "Next station"),
        ...(at === of - 1 ? [createElement("p", { className: "end", textContent: "That was the last station. Now read a text of your own: every weight of its attention can be looked at." })] : []),
        createElement("p", { className: "source", textContent: station.source })),
    );
    this.#show(isClass ? Math.min(PARTS.length - 1, Number(page.params.get("part")) || 0) : 0, progress()[station.name]?.predict !== undefined);
    page.view.getRootNode().addEventListener("keydown", (event) => this.#key(/** @type {KeyboardEvent} */ (event)), { signal: page.signal });
    page.setExport({ csv: made.shown.csv, json: made.shown.json, files: { Notebook: () => this.#file("notebook"), Slides: () => this.#file("slides") } });
  }

  /** A part of a class; otherwise all, once the guess is made. @param {number} to */
  #show(to, isRevealed = true) {
    this.#part = to;
    const { isClass } = this.#way;
    this.#parts.forEach((one, i) => { one.hidden = isClass ? i !== to : i > 0 && !isRevealed; });
    if (!isClass) return;
    // The numbers are there to be seen and to be changed.
    if (this.#lesson && (to === 1 || to === 2)) {
      this.#parts[to].insertBefore(this.#lesson.element, this.#parts[to].querySelector(".race"));
      this.#lesson.build();
    }
    const places = this.#way.main.querySelector(".places");
    places?.replaceChildren(...PARTS.map((name, i) => createElement("span", { className: i === to ? "here" : "", textContent: name })));
    this.#way.main.classList.toggle("first", to === 0);
    this.#page.view.scrollTop = 0;
    this.#page.saveState({ station: this.#station.name, class: 1, ...(to ? { part: to } : {}) });
  }

  async #file(kind) {
    const { name, text } = await this.#page.source.json(`station-file/${this.#way.at}?kind=${kind}`);
    return /** @type {[string, string]} */ ([name, text]);
  }

  /** A question: once an answer is chosen, each is explained. @param {"predict" | "check"} kind */
  #question(kind) {
    const { text, choices } = this.#station[kind];
    const verdict = createElement("p", { className: "verdict", data: { "aria-live": "polite" } });
    const reveal = button("Show the answer", "Show the answer without a guess (Enter)", () => answer(null));
    const buttons = choices.map((choice, i) => {
      const one = createElement("button", { type: "button", className: "choice" }, createElement("kbd", { textContent: String(i + 1) }), createElement("span", {}, ...prose(choice.text)));
      one.addEventListener("click", () => answer(i));
      return one;
    });
    const list = createElement("ol", { className: "choices" }, ...buttons.map((one) => createElement("li", {}, one)));
    /** @param {number | null} chosen */
    const answer = (chosen) => {
      list.classList.add("answered");
      buttons.forEach((one, i) => {
        const { is_right: isRight, why } = choices[i];
        one.className = `choice ${isRight ? "right" : "wrong"}${i === chosen ? " chosen" : ""}`;
        one.setAttribute("aria-pressed", String(i === chosen));
        one.lastElementChild?.replaceChildren(...prose(choices[i].text), createElement("small", {}, ...prose(`${isRight ? "✓ Right. " : "✗ Not so. "}${why}`)));
      });
      reveal.remove();
      verdict.textContent = chosen === null ? "" : choices[chosen].is_right ? "You are right." : "Not this one. The right answer is marked.";
      store(this.#station.name, kind, chosen ?? -1);
      if (kind === "predict" && !this.#way.isClass) this.#show(0);
    };
    this.#answer[kind] = answer;
    const before = progress()[this.#station.name]?.[kind];
    if (before !== undefined && !this.#way.isClass) queueMicrotask(() => answer(before < 0 ? null : Math.min(before, choices.length - 1)));
    return createElement("div", {}, createElement("p", { className: "question" }, ...prose(text)), list, verdict, reveal);
  }

  /** The numbers, and what changes them. */
  #shown() {
    const { name, lesson, step, walk, change } = this.#station;
    const apply = button("Change it", `Change it: ${change.text}`, () => this.#apply());
    const said = createElement("p", { className: "said", data: { "aria-live": "polite" } });
    if (!lesson) {
      const tables = createElement("div", {}, ...walkTables(this.#page, walk, step));
      const after = createElement("div", {});
      this.#apply = () => {
        after.replaceChildren(...walkTables(this.#page, change.walk, change.walk.steps.some((one) => one.name === "go on") ? "go on" : step));
        apply.disabled = true;
      };
      return { parts: [tables], change: [createElement("p", {}, ...prose(change.text)), apply, after], csv: () => walkRows(walk) };
    }
    const given = whole(lesson);
    const state = new LessonState(given, { lesson: given, drawn: null });
    const all = button("All steps", "Show all steps of the lesson, or only those that this station is about", () => {
      made.only = made.only ? null : STEPS[name];
      made.build();
    });
    const made = lessonBody(this.#page, { state, only: STEPS[name], save: () => {}, extra: () => [all] });
    made.build();
    this.#lesson = made;
    const sentence = () => [...[...made.element.querySelectorAll("section:not([hidden]) > div:first-child > p:last-child")].at(-1)?.cloneNode(true).childNodes ?? []];
    this.#apply = () => {
      const before = sentence();
      made.change({ ...whole(change.lesson), speaker: state.lesson.speaker });
      said.replaceChildren("Before: ", createElement("span", {}, ...before), createElement("br"), "Now: ", createElement("b", {}, ...sentence()));
      if (!this.#way.isClass) made.element.scrollIntoView({ block: "nearest" });
    };
    const more = name === "scale" ? [race(this.#page)] : [];
    return { parts: [made.element], change: [createElement("p", {}, ...prose(change.text)), apply, said, ...more], csv: made.csv, json: made.json };
  }

  #own() {
    const { own, name } = this.#station;
    const copy = button("Copy", "Copy the command", async () => {
      await navigator.clipboard?.writeText(own).catch(() => {});
      this.#page.setStatus("The command is copied");
    });
    const terminal = [createElement("p", { textContent: "In a terminal:" }), createElement("div", { className: "command" }, createElement("code", { tabIndex: 0, textContent: own }), copy)];
    const here = HERE[name] ? [createElement("p", {}, HERE[name])] : [];
    const example = OWN_EXAMPLE[name];
    if (!(name in OWN) && !example) return [...here, ...terminal];
    const [asks, does] = WAYS[example] ?? ["A sentence of your own", "Make a lesson of it"];
    const input = createElement("input", { placeholder: asks.toLowerCase(), autocomplete: "off", data: { "aria-label": asks } });
    const form = createElement("form", { className: "command" }, input, createElement("button", { textContent: does }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const said = input.value.trim();
      if (said) this.#page.go("lesson", example ? { example, text: said } : { words: said, ...OWN[name], form: "linear", seed: 0 });
    });
    return [...(here.length ? here : [createElement("p", { textContent: "Here:" })]), form, ...terminal];
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = event.composedPath()[0];
    const within = (/** @type {string} */ some) => target instanceof Element && target.closest(some) !== null;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || within("input, select, .lesson, [role=radiogroup], header nav, summary")) return;
    const { isClass, at, of, go } = this.#way;
    const kind = isClass ? { 0: "predict", 4: "check" }[this.#part] : this.#parts[1].hidden ? "predict" : "check";
    const { key } = event;
    if (/^[1-9]$/.test(key) && kind && Number(key) <= this.#station[kind].choices.length) this.#answer[kind](Number(key) - 1);
    else if (isClass && key === "Enter" && !within("button, a")) {
      if (kind) this.#answer[kind](null);
      else if (this.#part === 2) this.#apply();
    } else if (isClass && ["ArrowRight", "PageDown", " "].includes(key) && !(key === " " && within("button"))) this.#turn(1, at, of, go);
    else if (isClass && ["ArrowLeft", "PageUp"].includes(key)) this.#turn(-1, at, of, go);
    else if (isClass && ["ArrowDown", "ArrowUp"].includes(key)) this.#page.view.scrollBy({ top: (key === "ArrowDown" ? 0.5 : -0.5) * this.#page.view.clientHeight });
    else return;
    event.preventDefault();
  }

  /** The next part, or the next station. */
  #turn(by, at, of, go) {
    const to = this.#part + by;
    if (to >= 0 && to < PARTS.length) this.#show(to);
    else if (at + by >= 0 && at + by < of) go(at + by, by < 0 ? PARTS.length - 1 : 0);
  }
}

/** @param {string} name @param {string} title @param {...Node} content */
function part(name, title, ...content) {
  return createElement("section", { className: `part ${name}` }, createElement("h3", { textContent: title }), ...content);
}

/** What has been answered: in this browser alone. @returns {Record<string, Record<string, number>>} */
function progress() {
  try {
    return JSON.parse(localStorage.getItem(STORED) ?? "{}");
  } catch {
    return {};
  }
}

function store(station, kind, answer) {
  try {
    const all = progress();
    all[station] = { ...all[station], [kind]: answer };
    localStorage.setItem(STORED, JSON.stringify(all));
  } catch {
    // A browser that keeps nothing shows all stations anyway.
  }
}
