// A walk of the Python lessons on the page: one step of a trained model, with its sentence and tables.
import { createElement } from "./elements.js";
import { paint } from "./grids.js";
import { maths, prose } from "./sections.js";
import { decimal, weight } from "./sentences.js";

/** @param {Page} page @param {any} walk @param {string} name of the step */
export function walkTables(page, walk, name) {
  const step = walk.steps.find((one) => one.name === name) ?? walk.steps.at(-1);
  return [
    createElement("p", { className: "faint" }, ...prose([`“${walk.title}”`, ...walk.about].join(" · "))),
    createElement("p", { className: "formula" }, ...maths(step.formula)),
    createElement("p", {}, ...prose(step.sentence)),
    ...step.matrices.map((one) => walkTable(page, one)),
  ];
}

/** All numbers of a walk, for a CSV. @param {any} walk */
export function walkRows(walk) {
  return walk.steps.flatMap(({ name: of, matrices }) => matrices.flatMap((one) => one.values.map((row, i) => [of, one.name, one.row_labels[i], ...row])));
}

/** A matrix of a walk. @param {Page} page @param {any} matrix */
export function walkTable(page, { name, values, row_labels: rows, column_labels: columns, kind, decimals, hidden }) {
  const text = (value, isHidden) => (isHidden || value === null ? "–" : kind === "percent" ? weight(value) : decimal(value, kind === "count" ? 0 : decimals));
  const most = Math.sqrt(Math.max(...values.flat().filter((one) => one !== null))) || 1;
  const cells = values.map((row, i) => row.map((value, j) => createElement("td", { textContent: text(value, hidden?.[i][j]) })));
  const shade = () => { if (kind === "percent") values.forEach((row, i) => row.forEach((value, j) => paint(cells[i][j], (value ?? 0) / most, page.theme.table))); };
  shade();
  page.theme.onChange(shade);
  const head = (text, scope) => createElement("th", { scope, textContent: text });
  return createElement("div", { className: "scroller", tabIndex: 0, data: { role: "region", "aria-label": name } }, createElement("table", { className: "walk" },
    createElement("thead", {}, createElement("tr", {}, createElement("td", {}), ...columns.map((one) => head(one, "col")))),
    createElement("tbody", {}, ...cells.map((row, i) => createElement("tr", {}, head(rows[i], "row"), ...row)))));
}
