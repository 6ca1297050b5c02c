// The controls of a generation: back, play, next and a slider over its steps.
import { createElement } from "./elements.js";

const PACE = 700; // milliseconds per token while it plays

export class Player {
  #timer = 0; // while it plays
  #step = 0;
  #last;
  #show;
  #back = this.#button("‹ Back", "Previous token", () => this.go(this.#step - 1));
  #play = this.#button("Play", "Play", () => this.toggle());
  #next = this.#button("Next ›", "Next token", () => this.go(this.#step + 1));
  #count = createElement("span", { className: "count" });

  /** @param {number} last the number of the last step @param {(step: number) => void} show */
  constructor(last, show) {
    this.#last = last;
    this.#show = show;
    this.slider = createElement("input", { type: "range", min: 0, max: last, data: { "aria-label": "Step" } });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.#play.className = "play";
    this.element = createElement("div", { className: "player", data: { role: "group", "aria-label": "Steps" } }, this.#back, this.#play, this.#next, this.slider, this.#count);
  }

  /** @param {string} text @param {string} title @param {() => void} call */
  #button(text, title, call) {
    const element = createElement("button", { type: "button", textContent: text, title });
    element.addEventListener("click", call);
    return element;
  }

  /** Stop playing and show a step. @param {number} step */
  go(step) {
    this.stop();
    this.#show(step);
  }

  /** Play, from the beginning after the last step; or pause. */
  toggle() {
    if (this.#timer) {
      this.stop();
      return;
    }
    this.#play.textContent = this.#play.title = "Pause";
    this.#timer = setInterval(() => (this.#step < this.#last ? this.#show(this.#step + 1) : this.stop()), PACE);
    this.#show(this.#step < this.#last ? this.#step + 1 : 0);
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#play.textContent = this.#play.title = "Play";
  }

  /** Say which step is shown. @param {number} step @param {string} token */
  setStep(step, token) {
    const [number, count] = [step + 1, this.#last + 1];
    this.#step = step;
    this.slider.value = String(step);
    this.slider.setAttribute("aria-valuetext", `${number} of ${count}: ${token}`);
    this.#count.textContent = `${number.toLocaleString()} of ${count.toLocaleString()}`;
    this.#back.disabled = step === 0;
    this.#next.disabled = step === this.#last;
  }
}
