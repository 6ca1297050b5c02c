// The light or dark theme: that of the system or notebook, until the user switches it.
import { ramp } from "./colours.js";

/** The theme of a page, for all its views, until it is over. */
export function themeOf(root, ended) {
  const around = matchMedia("(prefers-color-scheme: dark)");
  const calls = new Set();
  let isTurned = false;
  let isDark = null;
  let table = null;
  /** Notebooks say on their body what they look like, whatever the system prefers. */
  const look = () => {
    const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
    if (jpThemeLight) return jpThemeLight === "false";
    return vscodeThemeKind ? vscodeThemeKind !== "vscode-light" : around.matches;
  };
  const set = (dark) => {
    if (dark === isDark) return;
    isDark = dark;
    table = ramp(dark);
    root.dataset.theme = dark ? "dark" : "light";
    calls.forEach((call) => call());
  };
  const follow = () => { if (!isTurned) set(look()); };
  const watcher = new MutationObserver(follow);
  watcher.observe(document.body, { attributes: true });
  around.addEventListener("change", follow, { signal: ended });
  ended.addEventListener("abort", () => watcher.disconnect());
  follow();
  return {
    toggle: () => { isTurned = true; set(!isDark); },
    /** What a view sees of it, until the view is over. */
    until: (signal) => ({
      get isDark() { return isDark; },
      get table() { return table; },
      /** A colour of the style layer, like "--ink". */
      colour: (name) => getComputedStyle(root).getPropertyValue(name).trim(),
      onChange: (call) => {
        calls.add(call);
        signal.addEventListener("abort", () => calls.delete(call));
      },
    }),
    colour: (name) => getComputedStyle(root).getPropertyValue(name).trim(),
  };
}
