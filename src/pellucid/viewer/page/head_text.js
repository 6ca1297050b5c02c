// What stands beside a map where there is room: what the head does, and the text, shaded by the pinned row.
import { percent, shade } from "./colours.js";
import { createElement } from "./elements.js";
import { behaviour } from "./head_panel.js";

const MOST_TOKENS = 1024; // of a text that is shown whole, and whose heads are measured for this

export class HeadText {
  #page;
  #tokens = createElement("p", { className: "tokens" });
  #what = createElement("div", {});

  /** @param {Page} page @param {HeadPlace} place */
  constructor(page, { layer, head }) {
    this.#page = page;
    const { stack, number } = page.about.layers[layer];
    this.element = createElement("div", { className: "about-head" },
      createElement("h2", { textContent: `Layer ${stack}${number}, head ${head}` }), this.#what,
      createElement("h3", { textContent: "The text" }), this.#tokens);
    this.#measure(layer, head);
  }

  /** @param {number} layer @param {number} head */
  async #measure(layer, head) {
    const { source, signal, about } = this.#page;
    const { queries, keys } = about.layers[layer];
    if (Math.max(queries, keys) > MOST_TOKENS) return; // it would take a while, and the overview says it
    try {
      for (let before = -1; ;) {
        const { done, of, rows } = await source.json("heads", signal);
        const found = rows.find((row) => row.layer_index === layer && row.head === head);
        if (found) this.#what.replaceChildren(...behaviour(found, rows));
        if (found || done >= of || done === before) return;
        before = done;
      }
    } catch {
      // It stays unsaid.
    }
  }

  /** @param {string[] | null} words @param {Float32Array | null} row what the pinned token attends to */
  paint(words, row) {
    if (!words || words.length > MOST_TOKENS) return;
    const spans = words.map((word, at) => {
      const span = createElement("span", { textContent: word, title: row ? percent(row[at]) : "" });
      const { paper, ink } = row && row[at] > 0 ? shade(row[at], this.#page.theme.table) : { paper: "", ink: "" };
      Object.assign(span.style, { background: paper, color: ink });
      return span;
    });
    this.#tokens.replaceChildren(...spans);
  }
}
