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

  /** @param {HTMLElement} body @param {{follow: Function, rebuild: () => void, point: (name: string|null) => void, signal: AbortSignal}} calls */
  constructor(body, { follow, rebuild, point, signal }) {
    this.#body = body;
    this.#follow = follow;
    this.#rebuild = rebuild;
    listen(body, point, signal);
  }

  clear() {
    this.#cells.clear();
  }

  /** @param {string | null} name */
  places(name) {
    return (name !== null && this.#cells.get(name)) || [];
  }

  /** @param {(name: string) => string} textOf */
  write(textOf) {
    for (const [name, places] of this.#cells) {
      const text = textOf(name);
      for (const place of places) if (place.textContent !== text) place.textContent = text;
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
    const element = createElement("td", { tabIndex: -1, className: isSide ? "side" : "" });
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
