// What is shown, as the part of the address after "#", so that it can be kept and sent.

/** @returns {{view: string, asked: URLSearchParams}} */
export function read(said) {
  const [view, rest = ""] = said.split("?");
  return { view: view || "overview", asked: new URLSearchParams(rest) };
}

/** A whole number of the address within bounds, or what is usual. */
export function whole(asked, name, most, usual = 0) {
  const said = asked.get(name);
  return said !== null && /^\d{1,9}$/.test(said) && Number(said) <= most ? Number(said) : usual;
}

export function link(view, told) {
  return `${view}?${new URLSearchParams(told)}`;
}

/** The browser's own address. */
export function ofBrowser() {
  return {
    get said() { return location.hash.slice(1); },
    go: (to) => { location.hash = to; },
    keep: (to) => history.replaceState(null, "", `#${to}`),
    onChange: (call) => addEventListener("hashchange", call),
  };
}

/** One of its own, for a page inside another. */
export function ofItsOwn(start = "") {
  let said = start;
  let changed = () => {};
  return {
    get said() { return said; },
    go: (to) => { said = to; changed(); },
    keep: (to) => { said = to; },
    onChange: (call) => { changed = call; },
  };
}
