// What is shown, as the part of the address after "#", so that it can be kept and sent.

/** @returns {{view: string, asked: URLSearchParams}} */
export function read() {
  const [view, rest = ""] = location.hash.slice(1).split("?");
  return { view: view || "overview", asked: new URLSearchParams(rest) };
}

/** A whole number of the address within bounds, or what is usual. */
export function whole(asked, name, most, usual = 0) {
  const said = asked.get(name);
  return said !== null && /^\d{1,9}$/.test(said) && Number(said) <= most ? Number(said) : usual;
}

export function link(view, told) {
  return `#${view}?${new URLSearchParams(told)}`;
}

/** Put what is shown into the address, without going anywhere. */
export function keep(view, told) {
  history.replaceState(null, "", link(view, told));
}
