// What can be changed in a lesson: scale, temperature and mask, by slider, mark or button.
// Each is given the steps, follow(call) for what is to follow every change, and changed() to tell of one.
import { button, createElement } from "./elements.js";
import { parse, withMask } from "./lesson_document.js";
import { count, decimal, weight } from "./sentences.js";

const TEMPERATURES = [-5, 5]; // powers of two
const SNAP = 0.12; // how near to a mark a slider jumps to it

/** A number of a slider, as it is written. @param {number} value */
const short = (value) => Number(value.toPrecision(6));
const isNear = (one, other, most = 1e-6) => Math.abs(one / other - 1) < most;

export function scaleSlider(lesson) {
  const { now, usual, size, given } = lesson.steps;
  const root = Math.sqrt(size);
  const own = usual.scale * root;
  const isLookup = given.lesson?.source && !given.encodings;
  /** @type {[number, string][]} */
  const marks = isLookup ? [1, 10, 100].map((times) => [root * times, String(times)]) : size === 1 ? [[1, "1"]] : [[1, `1/√${size}`], [root, "1"]];
  if (!given.lesson && ![1, root].some((one) => isNear(one, own))) marks.push([own, "as recorded"]);
  const most = isLookup ? 8 : Math.max(3, Math.log2(root) + 1);
  return slider(lesson, "Scale", [-most, most], marks, () => now.scale * root, (times) => {
    const mark = [[1 / root, 1], [1, root], [10, 10 * root], [100, 100 * root], [usual.scale, own]].find(([, value]) => isNear(value, times, 1e-9));
    now.scale = mark ? mark[0] : short(times / root);
  }, (times) => `= ${decimal(times)} / √${size}`, [() => now.scale, (value) => { now.scale = value; }]);
}

/** What the square root is for, in the numbers at hand. */
export function why({ steps, follow }) {
  const { size, given } = steps;
  const root = Math.sqrt(size);
  const element = createElement("p", { className: "faint" });
  const among = given.rest === null ? "" : `among these ${given.keys.length} tokens alone `;
  follow(() => {
    element.textContent = `Why the root? The variance of a dot product of ${count(size, "number")} is ${size} times that of one product, so its standard deviation is √${size} = ${root.toFixed(2)} times. `
      + `Unscaled (× 1) ${among}the largest weight would be ${weight(steps.largest(1))}; with 1/√${size} it is ${weight(steps.largest(1 / root))}.`.replaceAll(" %", "\u00a0%");
  });
  return element;
}

export function temperatureSlider(lesson) {
  const { now } = lesson.steps;
  return slider(lesson, "Temperature", TEMPERATURES, [[1, "1"]], () => now.temperature, (value) => { now.temperature = value; }, () => "τ");
}

export function maskChoice({ steps, follow, changed, state, change }) {
  const { given, now } = steps;
  const rules = given.rules.map(([rule]) => rule);
  const buttons = given.rules.map(([, text]) => createElement("button", { textContent: text }));
  const row = createElement("div", { className: "rules" }, oneOf(follow, "Mask", "segments", buttons, () => rules.indexOf(now.rule), (i) => {
    if (state) change(withMask(state.lesson, rules[i], (query) => steps.visibleTo(query)));
    else {
      now.rule = rules[i];
      changed();
    }
  }));
  if (given.offset === null || now.rule === "hand") return row;
  const input = createElement("input", { type: "range", min: 1, max: given.keys.length, step: 1, data: { "aria-label": "Window size in tokens" } });
  const output = createElement("span", { className: "value" });
  input.addEventListener("input", () => { Object.assign(now, { rule: "window", width: Number(input.value) }); changed(); });
  follow(() => {
    input.value = now.width;
    output.textContent = `window of ${now.width}: ${now.width === 1 ? "only itself" : `itself and the ${now.width - 1} before`}`;
  });
  row.append(input, output);
  return row;
}

/** Buttons of which one is chosen: one stop for Tab, with arrow keys inside. */
export function oneOf(follow, name, className, buttons, get, set) {
  const row = createElement("div", { className, data: { role: "radiogroup", "aria-label": name } }, ...buttons);
  buttons.forEach((one, i) => {
    one.type = "button";
    one.setAttribute("role", "radio");
    one.addEventListener("click", () => set(i));
  });
  row.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    set((get() + way + buttons.length) % buttons.length);
    buttons[get()].focus();
  });
  follow(() => buttons.forEach((one, i) => {
    one.setAttribute("aria-checked", String(i === get()));
    one.tabIndex = i === get() ? 0 : -1;
  }));
  return row;
}

/**
 * A slider over powers of two, which snaps to marks, and a field to type into.
 * @param {any} lesson @param {string} name @param {number[]} range @param {[number, string][]} marks
 * @param {() => number} get @param {(value: number) => void} set @param {(value: number) => string} show
 * @param {[() => number, (value: number) => void]} typed what the field holds
 */
function slider({ follow, changed, complain }, name, [least, most], marks, get, set, show, [read, write] = [get, set]) {
  const input = createElement("input", { type: "range", min: least, max: most, step: 0.05, data: { "aria-label": name } });
  const output = createElement("span", { className: "unit" });
  const field = createElement("input", { className: "typed", spellcheck: false, autocomplete: "off", data: { "aria-label": `${name}: type a number` } });
  field.addEventListener("change", () => {
    try {
      const value = parse(field.value);
      if (!(value >= 1e-6 && value <= 1e6)) throw new Error(`${name} must be from 0.000001 to 1,000,000`);
      write(value);
      changed();
    } catch (error) {
      field.setAttribute("aria-invalid", "true");
      complain(error.message);
    }
  });
  const at = (value) => Math.min(most, Math.max(least, Math.log2(value)));
  const row = createElement("div", { className: "marks" }, ...marks.map(([value, text]) => {
    const mark = button(text, `${name} ${text}`, () => { set(value); changed(); });
    mark.style.left = `${(100 * (at(value) - least)) / (most - least)}%`;
    return mark;
  }));
  // A pointer needs help to hit a mark exactly; the keyboard must be able to leave it.
  let isDragged = false;
  for (const kind of ["pointerdown", "pointerup", "pointercancel"]) input.addEventListener(kind, () => { isDragged = kind === "pointerdown"; });
  input.addEventListener("input", () => {
    const near = isDragged && marks.find(([value]) => Math.abs(at(value) - Number(input.value)) < SNAP);
    set(near ? near[0] : short(2 ** Number(input.value)));
    changed();
  });
  follow(() => {
    input.value = String(at(get()));
    field.value = String(short(read()));
    field.removeAttribute("aria-invalid");
    output.textContent = show(get());
    input.setAttribute("aria-valuetext", `${field.value} ${output.textContent}`);
  });
  return createElement("div", { className: "slider" }, createElement("span", {}, name), createElement("span", {}, field, " ", output), input, row);
}
