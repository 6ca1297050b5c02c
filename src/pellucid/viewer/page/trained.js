// An example of the Lesson view that a trained model works out on the server, for any text: one word in several sentences, which words
// a verdict hangs on, what comes next.
import { createElement } from "./elements.js";
import { section } from "./sections.js";
import { walkRows, walkTable } from "./walk.js";

const MOST_TEXT = 2000; // letters, as in trained.py
const MOST_QUERY = 100;

/** @typedef {{name: string, title: string, text: string, asks: string, query: string | null}} Trained */

/**
 * @param {Page} page @param {Trained} example
 * @param {(state: UrlState) => void} go other words
 */
export function trainedExample(page, example, go) {
  const { params, source, signal } = page;
  const { name } = example;
  const text = (params.get("text") ?? "").slice(0, MOST_TEXT);
  const query = (params.get("query") ?? "").slice(0, MOST_QUERY);
  const steps = createElement("div", { data: { "aria-live": "polite" } });
  const body = createElement("div", { className: "lesson" }, form(), steps);
  return { element: body, build };

  function form() {
    const lines = example.text.split("\n").length;
    const field = createElement("textarea", { value: text || example.text, rows: lines + Number(lines > 1), maxLength: MOST_TEXT, dir: "auto", spellcheck: false });
    const word = createElement("input", { value: query || example.query, maxLength: MOST_QUERY, spellcheck: false, autocomplete: "off" });
    const label = (title, content, className = "") => createElement("label", { className }, createElement("span", { textContent: title }), content);
    const made = createElement("form", { className: "setup own" }, label(example.asks, field, "wide"), ...(example.query === null ? [] : [label("The word", word)]), createElement("button", { textContent: "Work it out" }));
    made.addEventListener("submit", (event) => {
      event.preventDefault();
      go(stateOf(field.value, example.query === null ? "" : word.value));
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || lines > 1) return;
      event.preventDefault();
      made.requestSubmit();
    });
    return made;
  }

  /** What is not the example's own is in the address. */
  function stateOf(text, query) {
    const [said, word] = [text.trim(), query.trim()];
    return { example: name, ...(said && said !== example.text ? { text: said } : {}), ...(word && word !== example.query ? { query: word } : {}) };
  }

  async function build() {
    steps.replaceChildren(createElement("section", { className: "plain" }, createElement("p", { textContent: "The model reads …" })));
    try {
      const walk = await source.json(`walk?${new URLSearchParams({ example: name, ...(text ? { text } : {}), ...(query ? { query } : {}) })}`, signal);
      if (signal.aborted) return;
      const [model, ...lines] = walk.about;
      const about = createElement("section", { className: "plain" }, createElement("p", { textContent: model }), ...lines.map((one) => createElement("p", { className: "faint", textContent: one })));
      steps.replaceChildren(about, ...walk.steps.map((step, i) => section((call) => call(), i + 1, [capital(step.name), step.formula, () => step.sentence.replace(/(\d)%/g, "$1\u00a0%"), ...step.matrices.map((one) => walkTable(page, one)), ...(name === "next" && step.name === "next token" ? [picks(step.matrices[0], walk.facts.pick)] : [])])));
      page.setExport({ csv: () => walkRows(walk) });
      page.setStatus([example.title, model].join(" · "));
    } catch (error) {
      if (signal.aborted) return;
      steps.replaceChildren(createElement("section", { className: "plain" }, createElement("p", { className: "wrong", data: { role: "alert" }, textContent: capital(`${error.message}.`) })));
      page.setStatus("This cannot be worked out");
    }
  }

  /** The candidates, of which any can be picked. */
  function picks({ column_labels: tokens }, pick) {
    const buttons = tokens.map((token) => {
      const one = createElement("button", { type: "button", textContent: token, title: `Go on with '${token}'`, data: { "aria-pressed": token === pick } });
      one.addEventListener("click", () => go(stateOf(text, token)));
      return one;
    });
    return createElement("p", { className: "rules picks" }, "Go on with", ...buttons);
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
