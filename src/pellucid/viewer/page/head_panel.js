// The panel beside the overview: what one head does, or how to read the page.
import { context2d, createElement, hint, truncate } from "./elements.js";
import { STACKS } from "./head_card.js";
import { barLength, EFFECT, MEASURES, measureText, NAMING_RULE, ROLES, roleText } from "./head_measures.js";

/** @typedef {import("./head_card.js").HeadCard} HeadCard */

/** @param {string} textContent */
const paragraph = (textContent, className = "") => createElement("p", { className, textContent });

/** The texts of recordings, where they are known. @param {RecordingInfo[]} recordings */
export function quotes(recordings) {
  return recordings.flatMap(({ text }) => (text ? [createElement("blockquote", { dir: "auto", textContent: text })] : []));
}

/** How to read the overview. @param {(role: string) => number} count heads with a role */
export function introduction(count) {
  const roles = Object.keys(ROLES).filter(count).map((role) => `${role} (${count(role)})`);
  return [
    createElement("h2", { textContent: "All heads at a glance" }),
    paragraph("Each picture is a head. A row is a token that attends, a column a token that is attended to. Darker or brighter colours are larger weights; each head has its own scale."),
    paragraph(hint("Point at a head, or move to it with Tab and the arrow keys, to read here what it does. Press it to open its map.", "Tap a head to open its map.")),
    ...(roles.length ? [paragraph(`Found here: ${roles.join(", ")}.`)] : []),
    paragraph(NAMING_RULE, "faint"),
  ];
}

/** What a head does. @param {HeadCard} card @param {HeadCard[]} cards @param {string} sort */
export function description(card, cards, sort) {
  const { layer, row, head, recording } = card;
  const where = [recording && truncate(recording, 40), STACKS[layer.stack]].filter(Boolean).join(", ");
  const title = createElement("h2", { textContent: `Layer ${layer.number}, head ${head}` });
  const parts = [title, ...(where ? [paragraph(where, "faint")] : []), enlarged(card)];
  if (!row) return [...parts, paragraph("Not measured yet.", "faint")];
  return [
    ...parts,
    ...behaviour(row, cards.flatMap((one) => one.row ?? []), sort),
    ...(layer.items > 1 ? [paragraph(`Measures are averages over all ${layer.items} texts.`, "faint")] : []),
  ];
}

/** What a head does, and its measures. @param {import("./head_measures.js").HeadRow} row @param {import("./head_measures.js").HeadRow[]} all */
export function behaviour(row, all, sort = "layer") {
  const [what, source] = roleText(row.role);
  return [
    createElement("h3", { textContent: row.role || "no clear behaviour" }),
    paragraph(what),
    ...(source ? [paragraph(source, "faint")] : []),
    measures(row, all, sort),
  ];
}

/** @param {HeadCard} card */
function enlarged({ canvas, hasThumbnail }) {
  const large = createElement("canvas", { width: canvas.width, height: canvas.height, data: { "aria-hidden": "true" } });
  if (hasThumbnail) context2d(large).drawImage(canvas, 0, 0);
  return large;
}

/** All measures of a head, each with a bar. @param {import("./head_measures.js").HeadRow} row @param {import("./head_measures.js").HeadRow[]} all @param {string} sort */
function measures(row, all, sort) {
  const known = row.effect === undefined ? MEASURES : { ...MEASURES, effect: EFFECT };
  return createElement("div", { className: "measures" }, ...Object.entries(known).flatMap(([key, [name]]) => {
    const bar = createElement("i");
    bar.style.width = `${100 * barLength(key, row, all)}%`;
    const className = key === sort ? "by" : "";
    return [
      createElement("span", { className, textContent: name }),
      createElement("span", { className: "bar" }, bar),
      createElement("span", { className: `value ${className}`, textContent: measureText(key, row[key]) }),
    ];
  }));
}
