// The state of the page as the part of the address after "#", which can be bookmarked and shared.

const PAUSE = 200; // milliseconds between changes of the address

/** @param {string} hash like "map?layer=1&head=2" */
export function parseState(hash) {
  const [view, rest = ""] = hash.split("?");
  const params = new URLSearchParams(rest);
  // Older addresses call the layer "sheet".
  const layer = params.get("sheet");
  if (layer !== null && !params.has("layer")) params.set("layer", layer);
  return { view: view || "overview", params };
}

/** @param {string} view @param {UrlState | [string, string][]} state */
export function formatState(view, state) {
  const pairs = Array.isArray(state) ? state : Object.entries(state).map(([name, value]) => [name, String(value)]);
  return `${view}?${new URLSearchParams(pairs)}`;
}

/** A whole number from 0 to `most`; else null. @param {URLSearchParams} params @param {string} name @param {number} most */
export function optionalInteger(params, name, most) {
  const text = params.get(name);
  return text !== null && /^\d{1,9}$/.test(text) && Number(text) <= most ? Number(text) : null;
}

/** A whole number from 0 to `most`; else `fallback`. @param {URLSearchParams} params @param {string} name @param {number} most */
export function integerParam(params, name, most, fallback = 0) {
  return optionalInteger(params, name, most) ?? fallback;
}

/** One of some words; else `fallback`. @param {URLSearchParams} params @param {string} name @param {string[]} words @param {string} fallback */
export function choiceParam(params, name, words, fallback) {
  const text = params.get(name);
  return text !== null && words.includes(text) ? text : fallback;
}

/** The address of the browser. @returns {Url} */
export function browserUrl() {
  return {
    get hash() { return location.hash.slice(1); },
    go: (hash) => { location.hash = hash; },
    replace: (hash) => history.replaceState(null, "", `#${hash}`),
    onChange: (call) => addEventListener("hashchange", call),
  };
}

/** An address in memory, for a page inside another. @returns {Url} */
export function inMemoryUrl(start = "") {
  let current = start;
  let changed = () => {};
  return {
    get hash() { return current; },
    go: (hash) => { current = hash; changed(); },
    replace: (hash) => { current = hash; },
    onChange: (call) => { changed = call; },
  };
}

/** Calls at most every PAUSE milliseconds, and always after the last request. @param {() => void} call */
export function throttle(call) {
  let next = 0;
  let timer = 0;
  return () => {
    clearTimeout(timer);
    const wait = Math.min(PAUSE, Math.max(0, next - performance.now()));
    timer = setTimeout(() => { next = performance.now() + PAUSE; call(); }, wait);
  };
}
