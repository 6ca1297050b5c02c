// Small pieces of pages. Text is only ever text.

/** An element with properties and children. */
export function made(name, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(data ?? {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A choice with its name. @param {[string, string][]} options values and what they are called */
export function choice(name, options, value, change) {
  const select = made("select", {}, ...options.map(([one, text]) => made("option", { value: one, textContent: text })));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return made("label", {}, `${name} `, select);
}

export function button(text, title, call) {
  const element = made("button", { type: "button", textContent: text, title });
  element.setAttribute("aria-label", title);
  element.addEventListener("click", call);
  return element;
}

/** A choice among the heads of a recording. */
export function headChoice(sheets, sheet, head, change) {
  const options = sheets.flatMap((one, i) =>
    Array.from({ length: one.heads }, (_, j) => [`${i}.${j}`, `layer ${one.stack}${one.layer}, head ${j}`]));
  return choice("Head", options, `${sheet}.${head}`, (value) => change(...value.split(".").map(Number)));
}
