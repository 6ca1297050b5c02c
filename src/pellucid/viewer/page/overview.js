// All heads of all layers as thumbnails, in the order of layers or of what they do.
import { percent, picture } from "./colours.js";
import { choice, made } from "./parts.js";

const MEASURES = {
  layer: ["layers", "in the order of the model"],
  entropy: ["entropy", "how widely it looks, in nats"],
  distance: ["distance", "positions between a token and what it looks at"],
  first: ["first token", "the share that goes to the first token: a sink"],
  itself: ["itself", "the share that goes to the token itself"],
  previous: ["previous token", "the share that goes to the token before"],
  next: ["next token", "the share that goes to the token after"],
  duplicates: ["duplicates", "the share that goes to the same token elsewhere"],
  induction: ["induction", "the share that goes to what followed the same token earlier"],
  punctuation: ["punctuation", "the share that goes to punctuation and marks"],
};

export async function overview(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  let by = asked.get("sort") in MEASURES ? asked.get("sort") : "layer";
  const cards = about.sheets.flatMap((sheet, i) => Array.from({ length: sheet.heads }, (_, head) => card(i, sheet, head)));
  const measured = new Map();

  controls.append(choice("Sort by", Object.entries(MEASURES).map(([key, [name]]) => [key, name]), by, (value) => {
    by = value;
    page.keep({ sort: by });
    arrange();
  }));
  arrange();
  theme.onChange(() => cards.forEach(paint));
  page.offer({ csv });
  await Promise.all([thumbnails(), measures()]);

  function arrange() {
    if (by === "layer") {
      view.replaceChildren(...about.sheets.flatMap((sheet, i) => [
        made("h2", { className: "layer", textContent: `Layer ${sheet.stack}${sheet.layer}`, title: sheet.name }),
        made("div", { className: "heads" }, ...cards.filter((one) => one.sheet === i).map((one) => one.element)),
      ]));
      return;
    }
    const value = (one) => measured.get(`${one.sheet}.${one.head}`)?.[by] ?? -Infinity;
    const sorted = [...cards].sort((a, b) => value(b) - value(a));
    view.replaceChildren(made("div", { className: "heads" }, ...sorted.map((one) => one.element)));
    sorted.forEach(label);
  }

  async function thumbnails() {
    for (let i = 0; i < about.sheets.length; i++) {
      const { values, shape } = await source.numbers(`thumbnails/${i}/0`, signal);
      const [, height, width] = shape;
      for (const one of cards.filter((each) => each.sheet === i)) {
        const start = one.head * height * width;
        Object.assign(one, { values: values.subarray(start, start + height * width), height, width });
        paint(one);
      }
    }
  }

  async function measures() {
    for (let done = -1; done < about.sheets.length && !signal.aborted;) {
      const found = await source.json("heads", signal);
      found.rows.forEach((row) => measured.set(`${row.sheet}.${row.head}`, row));
      if (found.done !== done) {
        done = found.done;
        cards.forEach(label);
        if (by !== "layer") arrange();
        say(done < found.of ? `Measuring heads: ${done} of ${found.of} layers` : `${measured.size} heads`);
      }
    }
  }

  function csv() {
    const names = Object.keys(MEASURES).slice(1);
    const rows = [...measured.values()].map((row) => [row.name, row.label, row.head, row.role, ...names.map((name) => row[name])]);
    return [["module", "layer", "head", "role", ...names], ...rows];
  }

  function card(sheet, of, head) {
    const canvas = made("canvas", {});
    const role = made("span", { className: "role" });
    const name = `layer ${of.stack}${of.layer}, head ${head}`;
    const element = made("button", { type: "button", className: "head" }, canvas, `${of.stack}${of.layer}.${head}`, role);
    element.setAttribute("aria-label", name);
    element.addEventListener("click", () => page.go("map", { sheet, head }));
    return { sheet, head, element, canvas, role, name };
  }

  function label(one) {
    const row = measured.get(`${one.sheet}.${one.head}`);
    if (row === undefined) return;
    const value = row[by];
    const number = by === "layer" || value === null ? "" : by === "entropy" || by === "distance" ? value.toFixed(2) : percent(value);
    one.role.textContent = number || row.role;
    const told = Object.entries(MEASURES).filter(([key]) => key !== "layer" && row[key] !== null)
      .map(([key, [name, what]]) => `${name}: ${key === "entropy" || key === "distance" ? row[key].toFixed(2) : percent(row[key])} (${what})`);
    one.element.title = [`${one.name}${row.role ? `: ${row.role}` : ""}`, ...told].join("\n");
    one.element.setAttribute("aria-label", `${one.name}${row.role ? `, ${row.role}` : ""}${number ? `, ${MEASURES[by][0]} ${number}` : ""}`);
  }

  function paint(one) {
    if (!one.values) return;
    Object.assign(one.canvas, { width: one.width, height: one.height });
    const top = one.values.reduce((most, value) => Math.max(most, value), 0) || 1;
    one.canvas.getContext("2d").putImageData(picture(one.values, one.width, one.height, top, true, theme.table), 0, 0);
  }
}
