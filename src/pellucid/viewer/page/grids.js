// Tables of named numbers: highlighting, shading, and navigation with the arrow keys.
import { shade } from "./colours.js";
import { button, createElement } from "./elements.js";

const FEW = 8; // numbers of a vector that are all shown
const FIRST = 6; // shown of a longer one
/** @type {Record<string, [number, number]>} */
const WAYS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -Infinity], End: [0, Infinity] };

const numbersOf = (row) => [...row.children].filter((one) => one.dataset.cell);
const placeOf = (target) => target?.closest?.("td[data-cell]") ?? null;

export class Grids {
  #body;
  #follow;
  #rebuild;
  #cells = new Map(); // under a name all places where that number stands
  #isWide = false; // whether long vectors are shown whole
  #fields;
  #entries = 0;

  /**
   * @param {HTMLElement} body
   * @param {{follow: Function, rebuild: () => void, point: (name: string|null) => void, signal: AbortSignal, fields?: Fields}} calls
   *
   * @typedef {object} Fields what may be typed into
   * @property {(name: string) => boolean} has
   * @property {(name: string) => string} text
   * @property {(name: string) => number} number
   * @property {(name: string, text: string | number, entry: string) => void} set throws an Error that says what is wrong; changes of one entry are undone together
   * @property {(message: string) => void} complain
   */
  constructor(body, { follow, rebuild, point, signal, fields }) {
    this.#body = body;
    this.#follow = follow;
    this.#rebuild = rebuild;
    this.#fields = fields;
    listen(body, point, signal);
    if (fields) this.#listen(fields, signal);
  }

  /** @param {Fields} fields @param {AbortSignal} signal */
  #listen(fields, signal) {
    this.#body.addEventListener("click", ({ target }) => {
      const place = placeOf(target);
      if (place?.classList.contains("field") && !place.firstElementChild) this.#enter(place);
    }, { signal });
    this.#body.addEventListener("keydown", (event) => {
      const place = event.target;
      if (!(place instanceof HTMLElement) || !place.classList.contains("field") || event.ctrlKey || event.metaKey || event.altKey) return;
      const { key } = event;
      const name = place.dataset.cell ?? "";
      if (key === " " && name.startsWith("M.")) fields.set(name, fields.text(name) === "-inf" ? "0" : "-inf", "");
      else if (["Enter", "F2"].includes(key)) this.#enter(place);
      else if (/^[-−.\d]$/.test(key)) this.#enter(place, key);
      else if (["Backspace", "Delete"].includes(key)) this.#enter(place, "");
      else return;
      event.preventDefault();
    }, { signal });
  }

  /** A number becomes an input. What is typed counts at once; Escape takes it back. @param {HTMLElement} place @param {string} [typed] */
  #enter(place, typed) {
    const fields = /** @type {Fields} */ (this.#fields);
    const name = place.dataset.cell ?? "";
    const [before, number] = [fields.text(name), fields.number(name)]; // which is rounded, and which is not
    const entry = `entry ${++this.#entries}`;
    const input = createElement("input", { className: "entry", size: 1, value: typed ?? before, spellcheck: false, autocomplete: "off", data: { "aria-label": "Type a number" } });
    const apply = () => {
      try {
        fields.set(name, input.value === before ? number : input.value, entry);
        input.removeAttribute("aria-invalid");
        return true;
      } catch (error) {
        input.setAttribute("aria-invalid", "true");
        fields.complain(error.message);
        return false;
      }
    };
    let isOpen = true;
    const close = () => {
      isOpen = false;
      input.remove();
      this.write(this.#text, name);
    };
    /** Another number has the focus. @param {Element | null | undefined} next */
    const leave = (next) => {
      close();
      /** @type {any} */ (next ?? place).focus();
    };
    input.addEventListener("input", apply);
    input.addEventListener("blur", () => {
      if (!isOpen) return;
      if (!apply()) fields.set(name, number, entry);
      close();
    });
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const { key } = event;
      const way = { Enter: [event.shiftKey ? -1 : 1, 0], ArrowDown: [1, 0], ArrowUp: [-1, 0], Tab: [0, event.shiftKey ? -1 : 1] }[key];
      if (key === "Escape") {
        fields.set(name, number, entry);
        leave(place);
      } else if (way && apply()) {
        const there = next(place, way[0], way[1]);
        if (key === "Tab" && (there === place || !there?.classList.contains("field"))) { leave(place); return; }
        leave(there);
      } else if (!way) return;
      event.preventDefault();
    });
    place.replaceChildren(input);
    input.focus();
    if (typed === undefined) input.select();
    else apply();
  }

  clear() {
    this.#cells.clear();
  }

  /** @param {string | null} name */
  places(name) {
    return (name !== null && this.#cells.get(name)) || [];
  }

  #text = (/** @type {string} */ name) => name;

  /** @param {(name: string) => string} textOf @param {string} [only] */
  write(textOf, only) {
    this.#text = textOf;
    for (const [name, places] of only === undefined ? this.#cells : [[only, this.places(only)]]) {
      const text = textOf(name);
      for (const place of places) if (!place.firstElementChild && place.textContent !== text) place.textContent = text;
    }
  }

  /** @param {string | null} name @param {string[]} from */
  light(name, from) {
    for (const lit of this.#body.querySelectorAll(".lit, .pointed")) lit.classList.remove("lit", "pointed");
    for (const one of from) this.places(one).forEach((place) => place.classList.add("lit"));
    this.places(name).forEach((place) => place.classList.add("pointed"));
  }

  /** How many numbers of a vector are shown, and whether there is a button for the others. @param {number} size */
  shown(size) {
    return { count: size > FEW && !this.#isWide ? FIRST : size, more: size > FEW ? [{ more: size }] : [] };
  }

  /**
   * A table.
   * @param {(string | {more: number})[]} head
   * @param {string} name @param {{label?: string | (() => string), cells?: (string|null)[], side?: number, isResult?: boolean, isApart?: boolean, isChosen?: () => boolean, more?: number}[]} rows
   *   names of numbers, of which the first `side` belong to the label
   */
  grid(name, head, rows, className = "") {
    const table = createElement("table", { className, data: { role: "grid", "aria-label": name } },
      createElement("thead", {}, createElement("tr", {}, ...head.map((one) => this.#label(one, "col")))),
      createElement("tbody", {}, ...rows.flatMap((row) => this.#row(row))));
    const first = placeOf(table.querySelector("td[data-cell]"));
    if (first) first.tabIndex = 0;
    return createElement("div", { className: `scroller ${className}` }, table);
  }

  /** @param {any} row */
  #row({ label = "", cells = [], side = 0, isResult, isApart, isChosen, more }) {
    if (more) return [createElement("tr", { className: "more" }, createElement("td", { colSpan: 2, className: "blank" }, this.#button(more)))];
    const line = createElement("tr", { className: isResult ? "result" : "" }, this.#label(label, "row"),
      ...cells.map((one, i) => (one === null ? createElement("td", { className: "blank" }) : this.#cell(one, i < side))));
    if (isChosen) this.#follow(() => line.classList.toggle("chosen", isChosen()));
    return isApart ? [createElement("tr", { className: "gap", data: { "aria-hidden": "true" } }), line] : [line];
  }

  #label(one, scope) {
    if (one === "") return createElement("td", { className: "blank" });
    if (one.more) return createElement("th", { scope }, this.#button(one.more));
    const element = createElement("th", { className: "", scope });
    const write = (text) => { element.textContent = element.title = text; };
    if (typeof one === "function") this.#follow(() => write(one()));
    else write(one);
    return element;
  }

  /** @param {string} name @param {boolean} isSide */
  #cell(name, isSide) {
    const isField = this.#fields?.has(name);
    const element = createElement("td", { tabIndex: -1, className: `${isSide ? "side" : ""} ${isField ? "field" : ""}` });
    element.dataset.cell = name;
    this.#cells.set(name, [...this.places(name), element]);
    return element;
  }

  /** @param {number} size */
  #button(size) {
    const [text, title] = this.#isWide ? [`first ${FIRST}`, `Show only the first ${FIRST} numbers`] : [`… ${size - FIRST} more`, `Show all ${size} numbers`];
    return button(text, title, ({ target }) => {
      const all = () => /** @type {HTMLElement[]} */ ([...this.#body.querySelectorAll(".scroller button")]);
      const which = all().indexOf(/** @type {HTMLElement} */ (target));
      this.#isWide = !this.#isWide;
      this.#rebuild();
      all()[which].focus();
    });
  }

  /** All numbers as rows of a table: step, name, row, column, number. @param {(name: string) => number} number */
  rows(number) {
    const tables = [...this.#body.querySelectorAll("section")].flatMap((section) => {
      const name = section.querySelector("h2")?.lastChild?.textContent?.toLowerCase() ?? "";
      return /** @type {HTMLTableRowElement[]} */ ([...section.querySelectorAll("tbody tr")]).flatMap((row) => numbersOf(row).map((one) => {
        const column = row.closest("table")?.tHead?.rows[0].cells[one.cellIndex].textContent;
        return [name, one.dataset.cell, row.cells[0].textContent, column, number(one.dataset.cell)];
      }));
    });
    return [["step", "name", "row", "column", "number"], ...tables];
  }
}

/** The colours of a weight. @param {HTMLElement} element @param {Uint32Array} table @param {number} part from 0 to 1 */
export function paint(element, part, table) {
  const { paper, ink } = shade(part, table);
  element.style.backgroundColor = part > 0 ? paper : "";
  element.style.color = part > 0 ? ink : "";
}

function listen(body, point, signal) {
  body.addEventListener("pointerover", ({ target }) => {
    const place = placeOf(target);
    if (place) point(place.dataset.cell);
    else if (!target.closest(".origin")) point(placeOf(body.getRootNode().activeElement)?.dataset.cell ?? null);
  }, { signal });
  body.addEventListener("focusin", ({ target }) => {
    const place = placeOf(target);
    if (!place) return;
    for (const other of place.closest("table").querySelectorAll("td[tabindex='0']")) other.tabIndex = -1;
    place.tabIndex = 0;
    point(place.dataset.cell);
  }, { signal });
  body.addEventListener("keydown", (event) => {
    const place = placeOf(event.target);
    if (place && event.key === "Escape") { place.blur(); point(null); }
    if (!place || !WAYS[event.key]) return;
    event.preventDefault();
    next(place, ...WAYS[event.key])?.focus();
  }, { signal });
  // The same token stays above itself from step to step.
  body.addEventListener("scroll", ({ target }) => {
    if (!target.classList.contains("across")) return;
    for (const other of body.querySelectorAll(".scroller.across")) if (other.scrollLeft !== target.scrollLeft) other.scrollLeft = target.scrollLeft;
  }, { signal, capture: true });
}

/** The number so far down or across: in another row, the one nearest below or above. @param {any} place a cell @param {number} down @param {number} across */
function next(place, down, across) {
  let row = /** @type {Element | null} */ (place.parentElement);
  if (across) {
    const all = numbersOf(row);
    return all[Math.max(0, Math.min(all.length - 1, all.indexOf(place) + across))];
  }
  do row = (down > 0 ? row?.nextElementSibling : row?.previousElementSibling) ?? null; while (row && numbersOf(row).length === 0);
  const away = (one) => Math.abs(one.cellIndex - place.cellIndex);
  return row && numbersOf(row).reduce((best, one) => (away(one) < away(best) ? one : best));
}
