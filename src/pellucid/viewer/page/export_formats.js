// The formats of the export menu: PNG, SVG, CSV and an HTML file that works offline.
import { SHARED_ANSWERS } from "./data_source.js";
import { context2d, createElement } from "./elements.js";
import { offlinePage } from "./offline_source.js";
import { toSvg } from "./svg.js";

const SHARP = 2; // pixels of a PNG for each on screen

/** @param {string} name @param {string | Blob} content */
export function download(name, content) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content]));
  createElement("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Rows of cells as CSV (RFC 4180). @param {Cell[][]} rows */
export function csvOf(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return rows.map((row) => `${row.map((value) => cell(value ?? "")).join(",")}\r\n`).join("");
}

export const exporters = {
  svg: (view, theme) => toSvg(view, theme.colour("--paper")).text,

  async png(view, theme) {
    const { text, width, height } = toSvg(view, theme.colour("--paper"));
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    await image.decode();
    const canvas = createElement("canvas", { width: width * SHARP, height: height * SHARP });
    context2d(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(image.src);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  },

  /** Of all answers that the view has had, or of those that it says it needs now; what is a draft or not there yet is waited for. */
  async html(/** @type {CachedSource} */ source, /** @type {Exportable} */ { needs }, /** @type {string} */ address, /** @type {string} */ title) {
    const { answers: cached } = source;
    const wanted = needs?.() ?? new Set(cached.keys());
    const paths = new Set([...[...cached.keys()].filter((path) => SHARED_ANSWERS.test(path)), ...wanted]);
    const answers = await Promise.all([...paths].map(async (path) => {
      const known = cached.get(path);
      const isDraft = known && "isExact" in known && !known.isExact;
      return /** @type {[string, CachedAnswer]} */ ([path, known && !isDraft ? known : await source.numbers(path)]);
    }));
    if (!source.code) throw new Error("this page is a file already");
    return offlinePage(await source.code(), answers, address, title);
  },
};
