// What is on screen as a file: a picture, its numbers, or a page of its own.
import { written } from "./kept.js";
import { made } from "./parts.js";
import { drawing } from "./drawing.js";
import { COMMON } from "./source.js";

const SHARP = 2; // pixels of a PNG for each on screen

export function download(name, content) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content]));
  made("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Rows of cells as CSV (RFC 4180). */
export function csvOf(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return rows.map((row) => `${row.map((value) => cell(value ?? "")).join(",")}\r\n`).join("");
}

export const exported = {
  svg: (view, theme) => drawing(view, theme.colour("--paper")).text,

  async png(view, theme) {
    const { text, width, height } = drawing(view, theme.colour("--paper"));
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    await image.decode();
    const canvas = made("canvas", { width: width * SHARP, height: height * SHARP });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(image.src);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  },

  /** Of all answers that the view has had, or of those that it says it needs now; what is a draft or not there yet is waited for. */
  async html(source, { needs }, address, title) {
    const { taken } = source;
    const wanted = needs?.() ?? new Set(taken.keys());
    const paths = new Set([...[...taken.keys()].filter((path) => COMMON.test(path)), ...wanted]);
    const isThere = (one) => one && one.isExact !== false;
    const answers = await Promise.all([...paths].map(async (path) => [path, isThere(taken.get(path)) ? taken.get(path) : await source.numbers(path)]));
    return written(await source.code(), answers, address, title);
  },
};
