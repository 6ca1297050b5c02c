// What is on screen as SVG: elements with their text, and canvases that can be drawn again.
import { context2d } from "./elements.js";

/** A pen like that of a canvas, as far as views use it, which writes SVG. */
export class SvgContext {
  #parts = [];
  #open = [0];
  #path = "";
  #clips = 0;
  #states = [];

  fillStyle = "#000";
  strokeStyle = "#000";
  lineWidth = 1;
  globalAlpha = 1;
  font = "12px sans-serif";
  textAlign = "left";
  textBaseline = "alphabetic";
  imageSmoothingEnabled = true;

  static #count = 0;
  #name = `p${SvgContext.#count++}`;

  get text() { return this.#parts.join("\n"); }

  #group(attributes) {
    this.#parts.push(`<g ${attributes}>`);
    this.#open[this.#open.length - 1]++;
  }

  save() {
    this.#open.push(0);
    const { fillStyle, strokeStyle, lineWidth, globalAlpha, font, textAlign, textBaseline, imageSmoothingEnabled } = this;
    this.#states.push({ fillStyle, strokeStyle, lineWidth, globalAlpha, font, textAlign, textBaseline, imageSmoothingEnabled });
  }

  restore() {
    this.#parts.push("</g>".repeat(this.#open.pop() ?? 0));
    Object.assign(this, this.#states.pop());
  }

  translate(x, y) { this.#group(`transform="translate(${n(x)} ${n(y)})"`); }
  rotate(angle) { this.#group(`transform="rotate(${n((angle * 180) / Math.PI)})"`); }
  clearRect() {}
  beginPath() { this.#path = ""; }
  moveTo(x, y) { this.#path += `M${n(x)} ${n(y)}`; }
  lineTo(x, y) { this.#path += `L${n(x)} ${n(y)}`; }
  bezierCurveTo(...at) { this.#path += `C${at.map(n).join(" ")}`; }
  rect(x, y, wide, high) { this.#path += `M${n(x)} ${n(y)}h${n(wide)}v${n(high)}h${n(-wide)}Z`; }
  closePath() { this.#path += "Z"; }

  clip() {
    const name = `${this.#name}c${this.#clips++}`;
    this.#parts.push(`<clipPath id="${name}"><path d="${this.#path}"/></clipPath>`);
    this.#group(`clip-path="url(#${name})"`);
  }

  stroke() { this.#parts.push(`<path d="${this.#path}" fill="none" ${this.#strokes()}/>`); }
  fill() { this.#parts.push(`<path d="${this.#path}" ${paint("fill", this.fillStyle)}${this.#faint()}/>`); }

  fillRect(x, y, wide, high, round = 0) {
    const corners = round ? ` rx="${n(round)}"` : "";
    this.#parts.push(`<rect x="${n(x)}" y="${n(y)}" width="${n(wide)}" height="${n(high)}"${corners} ${paint("fill", this.fillStyle)}${this.#faint()}/>`);
  }

  strokeRect(x, y, wide, high) {
    this.#parts.push(`<rect x="${n(x)}" y="${n(y)}" width="${n(wide)}" height="${n(high)}" fill="none" ${this.#strokes()}/>`);
  }

  fillText(text, x, y) {
    const [, style, weight, size, family] = /^(italic )?(?:(bold|\d+) )?([\d.]+)px(?:\/\S+)? (.+)$/.exec(this.font) ?? ["", "", "", "12", "sans-serif"];
    const anchor = { left: "start", start: "start", center: "middle", right: "end", end: "end" }[this.textAlign];
    const line = { middle: "central", top: "text-before-edge", alphabetic: "alphabetic" }[this.textBaseline];
    this.#parts.push(`<text x="${n(x)}" y="${n(y)}" font-size="${size}" font-family="${safe(family)}" text-anchor="${anchor}" dominant-baseline="${line}"`
      + `${weight ? ` font-weight="${weight}"` : ""}${style ? ' font-style="italic"' : ""} xml:space="preserve" ${paint("fill", this.fillStyle)}${this.#faint()}>${safe(text)}</text>`);
  }

  /** As a canvas's: the whole of an image, or a part of it. */
  drawImage(image, ...at) {
    const [x, y, wide, high] = at.length > 4 ? at.slice(4) : at;
    let part = image;
    if (at.length > 4) {
      const [fromX, fromY, spanX, spanY] = at;
      part = Object.assign(document.createElement("canvas"), { width: Math.max(1, Math.round(spanX)), height: Math.max(1, Math.round(spanY)) });
      context2d(part).drawImage(image, fromX, fromY, spanX, spanY, 0, 0, part.width, part.height);
    }
    const smooth = this.imageSmoothingEnabled ? "" : ' image-rendering="pixelated"';
    this.#parts.push(`<image x="${n(x)}" y="${n(y)}" width="${n(wide)}" height="${n(high)}" preserveAspectRatio="none"${smooth} href="${part.toDataURL()}"/>`);
  }

  #faint() { return this.globalAlpha < 1 ? ` opacity="${n(this.globalAlpha)}"` : ""; }
  #strokes() { return `${paint("stroke", this.strokeStyle)} stroke-width="${n(this.lineWidth)}"${this.#faint()}`; }
}

/** @param {HTMLElement} root @param {string} paper @returns {{text: string, width: number, height: number}} what an element shows now, as a whole SVG */
export function toSvg(root, paper) {
  const box = root.getBoundingClientRect();
  const pen = new SvgContext();
  pen.fillStyle = paper;
  pen.fillRect(0, 0, box.width, box.height);
  walk(root, pen, box);
  const size = `width="${n(box.width)}" height="${n(box.height)}"`;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${n(box.width)} ${n(box.height)}">\n${pen.text}\n</svg>\n`;
  return { text, width: box.width, height: box.height };
}

/** @param {DOMRect} seen as much of the box as windows leave that scroll */
function walk(element, pen, box, seen = box) {
  const style = getComputedStyle(element);
  if (style.display === "none" || style.visibility === "hidden" || style.opacity === "0") return;
  const at = element.getBoundingClientRect();
  const isOut = at.right < seen.left || at.left > seen.right || at.bottom < seen.top || at.top > seen.bottom;
  if (isOut && style.display !== "contents") return;
  const [x, y] = [at.left - box.left, at.top - box.top];
  if (visible(style.backgroundColor)) {
    pen.fillStyle = style.backgroundColor;
    for (const each of style.display === "inline" ? element.getClientRects() : [at])
      pen.fillRect(each.left - box.left, each.top - box.top, each.width, each.height, parseFloat(style.borderRadius) || 0);
  }
  borders(style, pen, x, y, at);
  if (element instanceof HTMLCanvasElement) {
    pen.save();
    pen.translate(x, y);
    pen.imageSmoothingEnabled = style.imageRendering !== "pixelated";
    if (element.paint) element.paint(pen);
    else if (element.width && element.height) pen.drawImage(element, 0, 0, at.width, at.height);
    pen.restore();
    return;
  }
  if (element instanceof HTMLSelectElement) {
    const option = element.selectedOptions[0];
    if (option) words(option.textContent, at.left + 6, (at.top + at.bottom) / 2, style, pen, box);
    return;
  }
  if (element instanceof HTMLInputElement) {
    input(element, at, style, pen, box);
    return;
  }
  const isWindow = style.overflowX !== "visible" && (element.scrollWidth > element.clientWidth || element.scrollHeight > element.clientHeight);
  if (isWindow) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, at.width, at.height);
    pen.clip();
  }
  // What sticks lies above what it sticks to.
  const sticks = (one) => one.nodeType === Node.ELEMENT_NODE && getComputedStyle(one).position === "sticky";
  const children = [...element.childNodes];
  for (const child of [...children.filter((one) => !sticks(one)), ...children.filter(sticks)]) {
    if (child.nodeType === Node.ELEMENT_NODE) walk(child, pen, box, isWindow ? at : seen);
    else if (child.nodeType === Node.TEXT_NODE && child.data.trim()) lines(child, style, pen, box);
  }
  if (isWindow) pen.restore();
}

/** What is typed, ticked, or set by a slider. @param {HTMLInputElement} element @param {DOMRect} at @param {CSSStyleDeclaration} style @param {SvgContext} pen @param {DOMRect} box */
function input({ type, value, placeholder, checked, min, max }, at, style, pen, box) {
  const [left, middle] = [at.left - box.left, (at.top + at.bottom) / 2];
  const y = middle - box.top;
  pen.fillStyle = pen.strokeStyle = style.accentColor;
  pen.lineWidth = 1;
  if (type === "range") {
    const part = (Number(value) - Number(min)) / (Number(max) - Number(min));
    pen.strokeRect(left, y - 3, at.width, 6);
    pen.fillRect(left, y - 3, part * at.width, 6, 3);
    pen.fillRect(left + part * (at.width - 16), y - 8, 16, 16, 8);
  } else if (type === "checkbox") {
    pen.strokeRect(left, at.top - box.top, at.width, at.height);
    if (checked) words("✓", at.left + 1, middle, style, pen, box);
  } else {
    const text = value || placeholder;
    pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const inner = at.width - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 4;
    const indent = style.textAlign === "right" ? Math.max(0, inner - width(text, pen.font)) : 0;
    words(text, at.left + parseFloat(style.paddingLeft) + 2 + indent, middle, style, pen, box);
  }
}

/** @param {string} text @param {string} font */
function width(text, font) {
  const pen = context2d(document.createElement("canvas"));
  pen.font = font;
  return pen.measureText(text).width;
}

/** @param {CSSStyleDeclaration} style @param {SvgContext} pen @param {number} x @param {number} y @param {DOMRect} box */
function borders(style, pen, x, y, { width, height }) {
  const sides = { Top: [x, y, x + width, y], Right: [x + width, y, x + width, y + height], Bottom: [x, y + height, x + width, y + height], Left: [x, y, x, y + height] };
  for (const [side, [fromX, fromY, toX, toY]] of Object.entries(sides)) {
    const wide = parseFloat(style[`border${side}Width`]);
    if (!wide || style[`border${side}Style`] === "none" || !visible(style[`border${side}Color`])) continue;
    pen.strokeStyle = style[`border${side}Color`];
    pen.lineWidth = wide;
    pen.beginPath();
    pen.moveTo(fromX, fromY);
    pen.lineTo(toX, toY);
    pen.stroke();
  }
}

/** A text, broken where the browser broke it. @param {Text} node @param {CSSStyleDeclaration} style @param {SvgContext} pen @param {DOMRect} box */
function lines(node, style, pen, box) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const isOneLine = range.getClientRects().length < 2;
  const parts = isOneLine ? [[0, node.length]] : [...node.data.matchAll(/\S+\s*/g)].map((found) => [found.index, found.index + found[0].trimEnd().length]);
  for (const [start, end] of parts) {
    for (const [first, behind] of rows(node, start, end, range)) {
      range.setStart(node, first);
      range.setEnd(node, behind);
      const at = range.getClientRects()[0];
      if (at) words(node.data.slice(first, behind), at.left, (at.top + at.bottom) / 2, style, pen, box);
    }
  }
}

/** The parts of a word that is longer than a line, each in a line of its own. @param {Text} node @param {number} start @param {number} end @param {Range} range */
function rows(node, start, end, range) {
  range.setStart(node, start);
  range.setEnd(node, end);
  if (range.getClientRects().length < 2) return [[start, end]];
  const found = [];
  let top = null;
  for (let at = start; at < end;) {
    const next = at + ((node.data.codePointAt(at) ?? 0) > 0xffff ? 2 : 1);
    range.setStart(node, at);
    range.setEnd(node, next);
    const here = range.getClientRects()[0]?.top ?? top;
    const last = found.at(-1);
    if (last && here === top) last[1] = next;
    else found.push([at, next]);
    [at, top] = [next, here];
  }
  return found;
}

/** @param {string} text @param {number} left @param {number} middle @param {CSSStyleDeclaration} style @param {SvgContext} pen @param {DOMRect} box */
function words(text, left, middle, style, pen, box) {
  pen.fillStyle = style.color;
  pen.font = `${style.fontStyle === "italic" ? "italic " : ""}${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  pen.fillText(text.replace(/\s+/g, " "), left - box.left, middle - box.top);
}

/** @param {string} colour */
function visible(colour) {
  return colour !== "transparent" && !/^rgba\(.*, 0\)$/.test(colour) && !/\/ 0\)$/.test(colour);
}

/** @param {string} what @param {string} colour */
function paint(what, colour) {
  return `${what}="${safe(String(colour))}"`;
}

/** @param {number} number */
function n(number) {
  return Number(number.toFixed(2));
}

/** @param {string} text */
function safe(text) {
  const legal = text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd");
  const marks = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };  // "]]>" may not stand in text
  return legal.replace(/[&<>"]/g, (mark) => marks[mark]);
}
