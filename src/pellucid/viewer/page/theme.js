// The light or dark theme: that of the system or notebook, until the user switches it.
import { ramp } from "./colours.js";

/** The theme of a page. @param {HTMLElement} root @param {AbortSignal} ended */
export function themeOf(root, ended) {
  const around = matchMedia("(prefers-color-scheme: dark)");
  /** @type {Set<() => void>} */
  const calls = new Set();
  let isTurned = false;
  let isDark = false;
  let table = new Uint32Array(0); // of colours
  /** Notebooks declare their theme on the body; it takes precedence over that of the system. */
  const look = () => {
    const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
    if (jpThemeLight) return jpThemeLight === "false";
    return vscodeThemeKind ? vscodeThemeKind !== "vscode-light" : around.matches;
  };
  const set = (/** @type {boolean} */ dark) => {
    if (dark === isDark && table.length) return;
    isDark = dark;
    table = ramp(dark);
    root.dataset.theme = dark ? "dark" : "light";
    calls.forEach((call) => call());
  };
  /** A colour of the style sheet, like "--ink". @param {string} name */
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const follow = () => { if (!isTurned) set(look()); };
  const watcher = new MutationObserver(follow);
  watcher.observe(document.body, { attributes: true });
  around.addEventListener("change", follow, { signal: ended });
  ended.addEventListener("abort", () => watcher.disconnect());
  follow();
  return {
    toggle: () => { isTurned = true; set(!isDark); },
    /** The theme for a view, until it is closed. @param {AbortSignal} signal @returns {Theme} */
    until: (signal) => ({
      get isDark() { return isDark; },
      get table() { return table; },
      colour,
      onChange: (call) => {
        calls.add(call);
        signal.addEventListener("abort", () => calls.delete(call));
      },
    }),
    colour,
  };
}
