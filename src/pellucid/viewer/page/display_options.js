// How a map is displayed: pooling, colour scale and zoom, with their controls and URL parameters.
import { button, dropdown } from "./elements.js";
import { choiceParam } from "./url_state.js";

/** @typedef {{reduce: "max" | "mean", isLog: boolean}} DisplayOptions */

const FEW = 64; // tokens up to which the scale is linear by default

/** How cells are pooled and coloured, from the URL. @param {URLSearchParams} params @param {{keys: number}} layer @returns {DisplayOptions} */
export function readDisplayOptions(params, layer) {
  const scale = choiceParam(params, "scale", ["log", "linear"], layer.keys > FEW ? "log" : "linear");
  return {
    reduce: params.get("reduce") === "mean" ? "mean" : "max",
    isLog: scale === "log",
  };
}

/** Controls for both; for pooling only where cells are pooled. @param {DisplayOptions} options @param {boolean} isPooled @param {() => void} changed */
export function displayControls(options, isPooled, changed) {
  const pooled = dropdown("Pooling", [["max", "maximum"], ["mean", "mean"]], options.reduce, (value) => { options.reduce = value === "mean" ? "mean" : "max"; changed(); });
  const scale = dropdown("Scale", [["log", "logarithmic"], ["linear", "linear"]], options.isLog ? "log" : "linear", (value) => { options.isLog = value === "log"; changed(); });
  return isPooled ? [pooled, scale] : [scale];
}

/** The URL parameters of both. @param {DisplayOptions} options @returns {UrlState} */
export function displayState({ reduce, isLog }) {
  return { reduce, scale: isLog ? "log" : "linear" };
}

/** @param {import("./camera.js").Camera} camera @param {() => void} moved */
export function zoomButtons(camera, moved) {
  /** @param {string} text @param {string} title @param {() => void} call */
  const zoomButton = (text, title, call) => button(text, title, () => { call(); moved(); });
  return [
    zoomButton("−", "Zoom out", () => camera.zoom(1 / 1.6)),
    zoomButton("+", "Zoom in", () => camera.zoom(1.6)),
    zoomButton("All", "Show the whole map", () => camera.fit()),
  ];
}
