// Why divide by the root? Two small models train side by side, one of which does not, and each step is drawn as it comes.
import { button, context2d, createElement, dropdown } from "./elements.js";
import { prose } from "./sections.js";

const MEASURES = [["loss", "Loss"], ["right", "Right answers"], ["entropy", "Entropy"], ["max", "Largest logit"]];
/** Where each stands in a step, as TrainingStep of lessons/scaling_training.py has them. */
const PLACES = { loss: 0, entropy: 1, max: 2, right: 3 };
const [WIDE, HIGH] = [320, 150];
const COLOURS = ["--accent", "--mark"];

/** @param {Page} page */
export function race(page) {
  const { source, signal, theme } = page;
  let [size, seed] = [64, 0];
  /** @type {number[][][]} */
  let steps = [];
  let of = 1;
  let running = 0;
  const said = createElement("p", { className: "said", data: { "aria-live": "polite" } });
  const charts = MEASURES.map(([measure, title]) => {
    const canvas = createElement("canvas", { width: WIDE * 2, height: HIGH * 2, data: { role: "img", "aria-label": title } });
    const now = createElement("span", { className: "now" });
    const draw = (pen = context2d(canvas), times = 2) => plot(pen, steps.map((pair) => pair.map((one) => one[PLACES[measure]])), of, measure, theme, times);
    canvas.paint = (pen) => draw(pen, 1);
    return { draw, tell: () => { now.textContent = steps.length ? steps[steps.length - 1].map((one) => shown(measure, one[PLACES[measure]])).join(" · ") : ""; }, element: createElement("figure", {}, createElement("figcaption", {}, title, now), canvas) };
  });
  const start = button("Start the race", "Train both models", run);
  const show = () => charts.forEach(({ draw, tell }) => { draw(); tell(); });
  theme.onChange(show);

  async function run() {
    all.hidden = false;
    const mine = ++running;
    steps = [];
    said.textContent = "";
    start.textContent = "Start again";
    try {
      for (let sentence = null; sentence === null && mine === running;) {
        const answer = await source.json(`training?d_k=${size}&seed=${seed}&first=${steps.length}`, signal);
        if (mine !== running) return;
        steps.push(...answer.steps);
        ({ of, sentence } = answer);
        said.textContent = sentence ?? `Step ${steps.length} of ${of}`;
        show();
      }
    } catch (error) {
      if (!signal.aborted) said.textContent = `The race ended early: ${error.message}`;
    }
  }

  const key = COLOURS.map((colour, i) => createElement("span", { className: `key ${colour.slice(2)}` }, ...prose(["divided by √d_k", "not divided"][i])));
  const sizes = [16, 32, 64, 256].map((one) => /** @type {[string, string]} */ ([String(one), String(one)]));
  const all = createElement("div", { className: "charts", hidden: true }, ...charts.map(({ element }) => element));
  return createElement("div", { className: "race" },
    createElement("h4", { textContent: "A race" }),
    createElement("p", {}, ...prose("Two models of one head learn to look up a symbol among 16 pairs. They begin with the same numbers and see the same data; one divides its scores by √d_k, the other does not.")),
    createElement("div", { className: "draw" }, start, dropdown("dₖ", sizes, "64", (value) => { size = Number(value); run(); }),
      dropdown("Seed", Array.from({ length: 5 }, (_, i) => /** @type {[string, string]} */ ([String(i), String(i)])), "0", (value) => { seed = Number(value); run(); }), ...key),
    said, all);
}

function shown(measure, value) {
  if (measure === "right") return `${Math.round(100 * value)} %`;
  return value.toFixed(measure === "max" ? 1 : 2);
}

/** Two lines over the steps. @param {any} pen @param {number[][]} pairs @param {number} of */
function plot(pen, pairs, of, measure, theme, times) {
  pen.save();
  if (times !== 1) pen.scale(times, times);
  pen.clearRect(0, 0, WIDE, HIGH);
  const [left, top, right, bottom] = [44, 6, WIDE - 6, HIGH - 20];
  const most = measure === "right" ? 1 : Math.max(1e-9, ...pairs.flat()) * 1.05;
  const x = (i) => left + ((right - left) * i) / Math.max(1, of - 1);
  const y = (value) => bottom - ((bottom - top) * value) / most;
  pen.strokeStyle = theme.colour("--line");
  pen.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    pen.beginPath();
    pen.moveTo(left, y(part * most));
    pen.lineTo(right, y(part * most));
    pen.stroke();
  }
  pen.fillStyle = theme.colour("--faint");
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  if (pairs.length) for (const part of [0, 1]) pen.fillText(shown(measure, part * most), left - 4, y(part * most) + (part ? 4 : -2));
  pen.textAlign = "center";
  pen.fillText("steps", (left + right) / 2, HIGH - 7);
  COLOURS.forEach((colour, line) => {
    pen.strokeStyle = theme.colour(colour);
    pen.lineWidth = 2;
    pen.beginPath();
    pairs.forEach((pair, i) => (i ? pen.lineTo(x(i), y(pair[line])) : pen.moveTo(x(i), y(pair[line]))));
    pen.stroke();
  });
  pen.restore();
}
