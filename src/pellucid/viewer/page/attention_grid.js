// A table of weights in percent: tokens, or the aligned words of a translation.
import { percent, shade } from "./colours.js";
import { createElement, hint, truncate } from "./elements.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * @param {Page} page
 * @param {import("./links.js").ShownWeights} found
 * @param {Element[]} windows controls beside it
 */
export function attentionGrid({ setStatus, theme }, { queries, keys, planes: [plane], of, isAligned }, windows) {
  const row = (i) => plane.subarray(i * keys.count, (i + 1) * keys.count);
  const largest = (some) => some.reduce((most, value) => Math.max(most, value), 0);
  const top = largest(plane) || 1;
  const head = headings(keys, "col");
  const sides = headings(queries, "row");
  const cells = sides.map((_, i) => {
    const best = largest(row(i));
    const framed = best > 0 ? row(i).indexOf(best) : -1;
    return [...row(i)].map((value, j) => createElement("td", {
      className: j === framed ? "best" : "", tabIndex: i || j ? -1 : 0, textContent: value >= 0.005 ? Math.round(100 * value) : "",
      data: { "data-row": i, "data-column": j },
    }));
  });
  const table = createElement("table", { data: { "aria-label": isAligned
    ? "Alignment: target words in rows, source words in columns, percent of attention"
    : "Attention: queries in rows, keys in columns, in percent" } },
    createElement("thead", {}, createElement("tr", {}, createElement("td", { className: "corner" }), ...head)),
    createElement("tbody", {}, ...cells.map((some, i) => createElement("tr", {}, sides[i], ...some))));
  table.style.fontSize = Math.max(queries.count, keys.count) > 16 ? "" : "17px";
  const note = isAligned
    ? "The percentage of attention on each source word when a target word was generated"
    : "The percentage of its attention that each query gives to each key";

  const paint = () => cells.forEach((some, i) => some.forEach((cell, j) => {
    const { paper, ink } = shade(row(i)[j] / top, theme.table);
    Object.assign(cell.style, { background: paper, color: ink });
  }));
  const placeOf = ({ target }) => {
    const cell = target.closest("td[data-row]");
    return cell && [Number(cell.dataset.row), Number(cell.dataset.column)];
  };
  const tell = (event) => {
    const place = placeOf(event);
    if (!place) return;
    const [i, j] = place;
    for (const one of table.querySelectorAll(".lit")) one.classList.remove("lit");
    for (const one of [cells[i][j], sides[i], head[j]]) one.classList.add("lit");
    const name = (element, at) => `“${element.textContent}”${isAligned ? "" : ` (${at})`}`;
    setStatus(`${name(sides[i], queries.first + i)} ${isAligned ? "attended to" : "attends to"} ${name(head[j], keys.first + j)}: ${percent(row(i)[j])}`);
  };
  table.addEventListener("pointerover", tell);
  table.addEventListener("focusin", tell);
  table.addEventListener("keydown", (event) => {
    const [place, step] = [placeOf(event), STEPS[event.key]];
    if (!place || !step) return;
    event.preventDefault();
    const next = cells[place[0] + step[0]]?.[place[1] + step[1]];
    if (!next) return;
    cells[place[0]][place[1]].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  paint();
  setStatus(isAligned ? hint("Point at a cell, or move between cells with the arrow keys", "Tap a cell") : `${queries.count} × ${keys.count} weights · ${hint("point at a cell, or move between cells with the arrow keys", "tap a cell")}`);
  return {
    bar: createElement("div", { className: "bar" }, createElement("p", { className: "note", textContent: `${note}; the strongest of each row is outlined. ${of}.` }), ...windows),
    picture: createElement("div", { className: "attention-grid" }, table),
    paint,
    rows: () => [["", ...keys.words], ...queries.words.map((word, i) => [word, ...row(i)])],
  };
}

function headings({ words }, scope) {
  return words.map((word) => createElement("th", { scope, textContent: truncate(word, 24) }));
}
