// How a map is displayed: pooling, colour scale and zoom, with their controls and URL parameters.
import { button, dropdown } from "./elements.js";

const FEW = 64; // tokens up to which the scale is linear by default

/** How cells are pooled and coloured, as the address says. @param {{keys: number}} layer */
export function readDisplayOptions(params, { keys }) {
  const scale = params.get("scale");
  return {
    reduce: params.get("reduce") === "mean" ? "mean" : "max",
    isLog: ["log", "linear"].includes(scale) ? scale === "log" : keys > FEW,
  };
}

/** Choices of it; how cells are pooled only where there are such. */
export function displayControls(looks, isPooled, changed) {
  const pooled = dropdown("A cell shows the", [["max", "largest"], ["mean", "mean"]], looks.reduce, (value) => { looks.reduce = value; changed(); });
  const scale = dropdown("Scale", [["log", "logarithmic"], ["linear", "linear"]], looks.isLog ? "log" : "linear", (value) => { looks.isLog = value === "log"; changed(); });
  return isPooled ? [pooled, scale] : [scale];
}

export function displayState({ reduce, isLog }) {
  return { reduce, scale: isLog ? "log" : "linear" };
}

export function zoomButtons(camera, moved) {
  const ways = [["−", "Zoom out", () => camera.zoom(1 / 1.6)], ["+", "Zoom in", () => camera.zoom(1.6)], ["All", "Show the whole map", () => camera.fit()]];
  return ways.map(([text, title, call]) => button(text, title, () => { call(); moved(); }));
}
