// One hue whose lightness alone carries the number: read without telling hues apart, and in grey.

const LIGHT = [[245, 248, 251], [200, 224, 240], [121, 182, 219], [38, 119, 172], [15, 77, 127], [8, 42, 79]];
const DARK = [[21, 30, 41], [20, 58, 88], [25, 98, 143], [50, 146, 193], [132, 200, 229], [229, 245, 252]];
const STEPS = 1024;
const DECADES = 4; // of a logarithmic scale

/** A table of colours, as canvases store them. @returns {Uint32Array} */
export function ramp(isDark) {
  const stops = isDark ? DARK : LIGHT;
  const table = new Uint32Array(STEPS);
  for (let step = 0; step < STEPS; step++) {
    const place = (step / (STEPS - 1)) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = stops[below].map((low, i) => Math.round(low + (stops[below + 1][i] - low) * (place - below)));
    table[step] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

/** Where a weight stands on a scale that ends at `top`, from 0 to 1. */
export function share(value, top, isLog) {
  if (!(value > 0)) return 0;
  const part = isLog ? 1 + Math.log10(value / top) / DECADES : value / top;
  return Math.min(1, Math.max(0, part));
}

/** Numbers as a picture. @param {Float32Array} values */
export function picture(values, width, height, top, isLog, table) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = (STEPS - 1) / (isLog ? DECADES : top);
  const least = top * 10 ** -DECADES;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    let step = 0;
    if (isLog) step = value > least ? Math.log10(value / least) * scale : 0;
    else step = value * scale;
    pixels[i] = table[Math.min(STEPS - 1, step | 0)];
  }
  return image;
}

/** A colour of the ramp, and black or white to write on it. */
export function shade(part, table) {
  const pixel = table[Math.round(Math.min(1, Math.max(0, part)) * (STEPS - 1))];
  const [r, g, b] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const ink = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#0b121a" : "#ffffff";
  return { paper: `rgb(${r} ${g} ${b})`, ink };
}

/** A round number that is no smaller: 1, 2 or 5 times a power of ten. */
export function rounded(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.9999999) * power;
}

/** A weight as people read it. */
export function percent(value) {
  const part = value * 100;
  if (part === 0) return "0 %";
  if (part >= 10) return `${part.toFixed(1)} %`;
  return part >= 0.01 ? `${part.toPrecision(2)} %` : `${part.toExponential(1)} %`;
}
