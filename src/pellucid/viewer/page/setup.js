// The words of a lesson, and how its numbers are drawn: sizes, seed and form.
import { button, createElement, dropdown } from "./elements.js";
import { isProjected, keyDim, MOST, randomLesson, reversed, withPositions, withSource, withWords } from "./lesson_document.js";

const wordsOf = (text) => text.trim().split(/\s+/).filter(Boolean);

/** @param {any} lesson state, change(lesson, merge, drawn), complain(message) and the wheel of colours */
export function setup(lesson) {
  const { state, change } = lesson;
  const now = state.lesson;
  const fields = [wordsField(lesson, "tokens", isProjected(now) ? "Words" : "Queries", "What attends: add, rename or remove words")];
  if (isProjected(now)) fields.push(wordsField(lesson, "source", "Attend to", "A second sentence to attend to (cross-attention); empty: the words themselves"));
  else if (now.source) fields.push(wordsField(lesson, "source", "Keys", "The keys of the table: add, rename or remove them"));
  const controls = createElement("div", { className: "setup" }, ...fields);
  if (!isProjected(now)) return controls;
  controls.append(createElement("div", { className: "draw" }, ...sizes(lesson), button("Reverse", "Put the words in the opposite order", () => change(reversed(state.lesson)))));
  return controls;
}

function wordsField({ state, change, complain, wheel }, side, name, title) {
  const old = state.lesson[side] ?? [];
  const input = createElement("input", { value: old.join(" "), title, spellcheck: false, autocomplete: "off", placeholder: side === "source" ? "the same words" : "" });
  input.addEventListener("change", () => {
    const words = wordsOf(input.value);
    if (words.join(" ") === old.join(" ")) return;
    try {
      if (words.length > MOST.tokens) throw new Error(`At most ${MOST.tokens} words, not ${words.length}`);
      if (!words.length && (side === "tokens" || !isProjected(state.lesson))) throw new Error("At least one word is needed");
      change(side === "source" && isProjected(state.lesson) && (!old.length || !words.length) ? withSource(state.lesson, words) : withWords(state.lesson, side, words, wheel));
    } catch (error) {
      input.setAttribute("aria-invalid", "true");
      complain(error.message);
    }
  });
  input.addEventListener("input", () => input.removeAttribute("aria-invalid"));
  return createElement("label", { className: "wide" }, createElement("span", { textContent: name }), input);
}

/** How many numbers, and which: a change draws all of them anew, as `pellucid explain --words --seed` does. */
function sizes({ state, change, complain, follow }) {
  const drawn = () => {
    const now = state.lesson;
    return {
      width: now.embeddings[0].length, size: keyDim(now), heads: now.heads, seed: 0, form: "parameters",
      ...state.drawn, positions: now.positions !== null, words: now.tokens, source: now.source,
    };
  };
  const draw = (more) => {
    const how = { ...drawn(), ...more };
    change({ ...randomLesson(how), speaker: state.lesson.speaker }, "", how);
  };
  const number = (name, field, title, least, most) => {
    const input = createElement("input", { type: "number", min: least, max: most, step: 1, placeholder: "–", title });
    follow(() => { input.value = field === "seed" && !state.drawn ? "" : drawn()[field]; });
    input.addEventListener("change", () => {
      const value = input.valueAsNumber;
      if (Number.isInteger(value) && value >= least && value <= most) { draw({ [field]: value }); return; }
      input.setAttribute("aria-invalid", "true");
      complain(`${name} must be a whole number from ${least} to ${most.toLocaleString("en")}`);
    });
    return createElement("label", {}, createElement("span", { textContent: name }), input);
  };
  const form = dropdown("Weights", [["", "as given"], ["parameters", "torch.rand"], ["linear", "nn.Linear"]], "", (value) => { if (value) draw({ form: value }); });
  const select = /** @type {HTMLSelectElement} */ (form.querySelector("select"));
  select.options[0].hidden = true;
  follow(() => { select.value = state.drawn ? drawn().form : ""; });
  return [
    number("Width", "width", "Numbers of an embedding: another width draws all numbers anew", 1, MOST.size),
    number("Head size", "size", "Numbers of a query, key and value of one head", 1, MOST.size),
    number("Heads", "heads", "How many heads; several are mixed by W_output", 1, 16),
    number("Seed", "seed", "All embeddings and weights are drawn by it, as PyTorch does", 0, MOST.seed),
    form,
    button("Draw new numbers", "Draw all embeddings and weights anew, by the next seed", () => draw({ seed: state.drawn ? (state.drawn.seed + 1) % (MOST.seed + 1) : 0 })),
  ];
}

/** A box that adds position embeddings or takes them away. */
export function positionsSwitch({ state, change }) {
  const box = createElement("input", { type: "checkbox", checked: state.lesson.positions !== null });
  box.addEventListener("change", () => change(withPositions(state.lesson, box.checked, state.drawn?.seed ?? 0)));
  return createElement("label", { className: "switch" }, box, " add position embeddings");
}
