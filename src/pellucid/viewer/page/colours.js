// Colour scales. One hue, whose lightness alone carries the number, can be read without colour vision and in grey.
// Differences are blue or orange, which colour-blind people can distinguish too.

const LIGHT = [[245, 248, 251], [200, 224, 240], [121, 182, 219], [38, 119, 172], [15, 77, 127], [8, 42, 79]];
const DARK = [[21, 30, 41], [20, 58, 88], [25, 98, 143], [50, 146, 193], [132, 200, 229], [229, 245, 252]];
const LIGHT_SIGNED = [[5, 48, 97], [33, 102, 172], [103, 169, 207], [246, 246, 246], [241, 163, 64], [179, 88, 6], [104, 48, 3]];
const DARK_SIGNED = [[190, 228, 255], [96, 176, 235], [28, 92, 145], [24, 30, 38], [140, 76, 16], [232, 140, 48], [255, 216, 168]];
const STEPS = 1024;
const DECADES = 4; // of a logarithmic scale
const HALF = 1 << 15; // positive numbers, distinguished by the upper bits of a float32
// Colours that stay apart in every kind of colour blindness (Okabe and Ito 2008) and on this paper,
// and what to write on them. Heads bear their number wherever they bear a colour.
const INK = "#0b121a";
const SHARED = [["#e69f00", INK], ["#009e73", INK], ["#cc79a7", INK]];
const HEADS = {
  light: [["#0072b2", "#ffffff"], ...SHARED, ["#56b4e9", INK], ["#d55e00", INK], ["#12202e", "#ffffff"]],
  dark: [["#56b4e9", INK], ...SHARED, ["#f0e442", INK], ["#d55e00", INK], ["#e5eef5", INK]],
};
/** @type {ImageData | null} */
let image = null; // most tiles are of one size

/** A table of colours, as canvases store them. @param {boolean} isDark */
export function ramp(isDark) {
  return between(isDark ? DARK : LIGHT);
}

/** The same for signed numbers. @param {boolean} isDark */
export function signedRamp(isDark) {
  return between(isDark ? DARK_SIGNED : LIGHT_SIGNED);
}

/** @param {number[][]} stops red, green and blue */
function between(stops) {
  const table = new Uint32Array(STEPS);
  for (let step = 0; step < STEPS; step++) {
    const place = (step / (STEPS - 1)) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = stops[below].map((low, i) => Math.round(low + (stops[below + 1][i] - low) * (place - below)));
    table[step] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

/** The place of a weight on a scale up to `top`, from 0 to 1. @param {number} value @param {number} top @param {boolean} isLog */
export function share(value, top, isLog) {
  if (!(value > 0)) return 0;
  const part = isLog ? 1 + Math.log10(value / top) / DECADES : value / top;
  return Math.min(1, Math.max(0, part));
}

/** The same for differences, with 0 in the middle. @param {number} value @param {number} top @param {boolean} isLog */
export function signedShare(value, top, isLog) {
  return 0.5 + (Math.sign(value) * share(Math.abs(value), top, isLog)) / 2;
}

/** The smallest weight on a logarithmic scale. @param {number} top */
export function least(top) {
  return top * 10 ** -DECADES;
}

/**
 * The colours of all numbers, each found by the upper half of its bits: so that millions of cells
 * are painted without a logarithm.
 * @param {(value: number) => number} partOf as `share`
 * @param {Uint32Array} table
 */
export function shadesOf(partOf, table) {
  const bits = new Uint32Array(1);
  const float = new Float32Array(bits.buffer);
  const shades = new Uint32Array(2 * HALF);
  for (let i = 0; i < 2 * HALF; i++) {
    bits[0] = (i << 16) | (i % HALF ? HALF : 0); // the middle of what shares these bits
    shades[i] = table[Math.round(partOf(float[0]) * (STEPS - 1)) || 0];
  }
  return shades;
}

/** Paint numbers onto a canvas of as many pixels. @param {HTMLCanvasElement} canvas @param {Float32Array} values @param {Uint32Array} shades */
export function paintCells(canvas, values, shades) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (image?.width !== canvas.width || image.height !== canvas.height) image = pen.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) pixels[i] = shades[bits[i] >>> 16];
  pen.putImageData(image, 0, 0);
}

/** Numbers as a picture. @param {Float32Array} values @param {number} width @param {number} height @param {number} top @param {boolean} isLog @param {Uint32Array} table */
export function picture(values, width, height, top, isLog, table) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < values.length; i++) pixels[i] = table[Math.floor(share(values[i], top, isLog) * (STEPS - 1))];
  return image;
}

/** A colour of the ramp, and black or white to write on it: whichever has more contrast, at least 4.5 to 1 (WCAG 2). @param {number} part from 0 to 1 @param {Uint32Array} table */
export function shade(part, table) {
  const pixel = table[Math.round(Math.min(1, Math.max(0, part)) * (STEPS - 1))];
  const colour = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const [r, g, b] = colour.map((one) => (one <= 10 ? one / 3294 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  const ink = 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
  return { paper: `rgb(${colour.join(" ")})`, ink };
}

/** The colour of a head, and of text on it. @param {number} head @param {boolean} isDark */
export function headColour(head, isDark) {
  const all = isDark ? HEADS.dark : HEADS.light;
  const [paper, ink] = all[head % all.length];
  return { paper, ink };
}

/** A round number that is no smaller, up to what float32 rounds: 1, 2 or 5 times a power of ten. @param {number} value */
export function rounded(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5].find((step) => step * power >= value * 0.99999) ?? 10) * power;
}

const LEAST = 1e-3; // percent; less is next to nothing, and nobody reads powers of ten

/** A weight as people read it. @param {number} value */
export function percent(value) {
  const part = value * 100;
  if (part === 0) return "0 %";
  if (part >= 10) return `${part.toFixed(1)} %`;
  return part >= LEAST ? `${part.toPrecision(2)} %` : "≈ 0 %";
}

/** The same, with a dash for what a mask hides. @param {number} value */
export function percentOrDash(value) {
  return value === 0 ? "–" : percent(value);
}

/** The same of round numbers, which the ends of scales are. */
export function roundPercent(value) {
  return `${Number((value * 100).toPrecision(2))} %`;
}

/** A difference of weights as people read it. @param {number} value */
export function signedPercent(value) {
  const text = percent(Math.abs(value));
  return Math.abs(value) * 100 < LEAST ? text : `${value > 0 ? "+" : "−"}${text}`;
}
