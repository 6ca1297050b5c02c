// The arithmetic of one query, step by step. Pointing at a number lights those it is made of; sliders change it.
import { attend, project, seen } from "./arithmetic.js";
import { percent, shade } from "./colours.js";
import { seldom } from "./looks.js";
import { button, choice, headChoice, itemChoice, made } from "./parts.js";
import { count, decimal, quote, speaker, vectors } from "./sentences.js";
import { whole } from "./address.js";

const FEW = 8; // numbers of a vector that are all shown
const FIRST = 6; // shown of a longer one
const TEMPERATURES = [-5, 5]; // powers of two
const SNAP = 0.12; // how near to a mark a slider jumps to it
const MOST = 64; // tokens whose numbers come at once: see lesson.py
const LONG = 9; // terms of a sum that may stand before the sum itself
let scrolled = 0; // how far down the numbers that follow these are to be shown

export async function lesson(page) {
  const { about, asked, source, signal, view, controls } = page;
  const { examples } = await source.json("examples", signal);
  signal.throwIfAborted();
  const example = asked.has("sheet") ? undefined : examples.find((one) => one.name === asked.get("example")) ?? examples[0];
  const place = {};
  if (!example) {
    place.sheet = whole(asked, "sheet", about.sheets.length - 1);
    const sheet = about.sheets[place.sheet];
    place.item = whole(asked, "item", sheet.items - 1);
    place.head = whole(asked, "head", sheet.heads - 1);
    place.token = whole(asked, "token", sheet.queries - 1);
    // Those around one token, while another may ask: a file holds what was asked for once.
    place.around = Math.max(sheet.queries, sheet.keys) > MOST ? whole(asked, "around", sheet.queries - 1, place.token) : 0;
  }
  const { sheet, item, head, token, around } = place;
  let current = () => token; // the token that asks
  controls.append(choice("Numbers of", [
    ...examples.map((one) => [one.name, one.title]),
    ...(about.sheets.length ? [["recording", "this recording"]] : []),
  ], example?.name ?? "recording", (value) => {
    go(value === "recording" ? { sheet: 0, head: 0 } : { example: value });
  }));
  if (!example) {
    const other = (more) => go({ sheet, item, head, token: current(), ...more });
    controls.append(
      headChoice(about.sheets, sheet, head, (newSheet, newHead) => other({ sheet: newSheet, head: newHead }), { recordings: about.recordings }),
      itemChoice(about.sheets, sheet, item, (newItem) => other({ item: newItem })),
    );
  }

  const given = example ? ofExample(example) : ofHead(await source.json(`lesson/${sheet}/${item}/${head}?token=${around}`, signal), about.sheets[sheet]);
  signal.throwIfAborted();
  const size = given.keyDim;
  const usual = { scale: given.scale, temperature: 1, rule: given.rule, width: Math.min(3, given.keys.length) };
  const now = { ...usual, query: example ? whole(asked, "query", given.tokens.length - 1, example.speaker) : Math.min(Math.max(0, token - given.first), given.tokens.length - 1) };
  current = () => given.first + now.query;
  for (const name of ["scale", "temperature", "width"]) {
    const said = Number(asked.get(name) ?? Number.NaN);
    if (said > 0 && Number.isFinite(said)) now[name] = said;
  }
  now.width = Math.min(Math.ceil(now.width), given.keys.length);
  if (given.rules.some(([rule]) => rule === asked.get("mask"))) now.rule = asked.get("mask");
  const decimals = example ? 4 : 2;

  const keep = seldom(() => page.keep(told()));
  let isWide = false; // whether long vectors are shown whole
  let found = {}; // all numbers of this query
  let pointed = null; // the key of the number that is explained
  const cells = new Map(); // under a name like "K.2.1" all places where that number stands
  const refreshing = []; // what follows the numbers, apart from cells

  const body = made("div", { className: "lesson" });
  const words = made("p", { className: `origin${example ? "" : " long"}`, tabIndex: 0, data: { role: "group", "aria-live": "polite", "aria-label": "Where the number comes from" } });
  view.append(body);
  listen();
  build();
  centre();
  [view.scrollTop, scrolled] = [scrolled, 0];
  page.theme.onChange(shadeAll);
  page.offer({ csv });
  page.say(given.about.join(" · "));

  /** Other numbers, at the step that is looked at now. */
  function go(told) {
    scrolled = view.scrollTop;
    page.go("lesson", told);
  }

  /* The numbers */

  function compute() {
    const i = now.query;
    const isChanged = now.scale !== usual.scale || now.temperature !== 1 || now.rule !== usual.rule;
    const recordedRow = given.visible === null ? null : given.visible[i];
    const visible = now.rule === "recorded" ? recordedRow : seen(now.rule, given.first - given.firstKey + i, given.keys.length, given.offset, now.width);
    // The other tokens are known as one number alone, which holds for the model's own scale and mask.
    const hasRest = given.rest !== null && !isChanged;
    found = attend({
      query: given.query[i], keys: given.key, values: given.value, scale: now.scale, softcap: given.softcap,
      bias: given.bias === null ? null : given.bias[i], visible, temperature: now.temperature, sink: given.sink,
      rest: hasRest ? given.rest[i] : null, restValue: hasRest && given.restValue !== null ? given.restValue[i] : null,
    });
    Object.assign(found, { isChanged, hasRest, visible, who: given.who(i) });
  }

  /** The number of a name. */
  function number(name) {
    const [what, a, b] = name.split(".");
    const { query: i } = now;
    switch (what) {
      case "x": return given.encodings[i][a];
      case "q": return given.query[i][a];
      case "X": return given.encodings[a][b];
      case "Wq": return given.projections.query[a][b];
      case "Wk": return given.projections.key[a][b];
      case "Wv": return given.projections.value[a][b];
      case "K": return given.key[a][b];
      case "V": return given.value[a][b];
      case "rest-V": return found.hasRest && given.restValue !== null ? given.restValue[i][a] : Number.NaN;
      case "factor": return now.scale;
      case "bias": return given.bias[i][a] ?? 0;
      case "rest-masked": return found.hasRest ? given.rest[i] ?? -Infinity : Number.NaN;
      case "sink-masked": return given.sink;
      case "rest-exp": return found.hasRest ? found.restExp : Number.NaN;
      case "sink-exp": return found.sinkExp;
      case "rest-weight": return found.hasRest ? found.restWeight : Number.NaN;
      case "sink-weight": return found.sinkWeight;
      case "sum": return found.sum;
      case "all": return found.weights.reduce((sum, one) => sum + one, found.restWeight + found.sinkWeight);
      case "context": return found.context[a];
      default: return { score: found.scores, scaled: found.scaled, capped: found.capped, masked: found.masked, exp: found.exps, weight: found.weights }[what][a];
    }
  }

  function said(name, value = number(name), more = 0) {
    if (Number.isNaN(value)) return "–";
    if (/weight|all/.test(name)) return percent(value);
    if (/^x|^X/.test(name)) return decimal(value, 2);
    if (name === "factor") return decimal(value, 4);
    const places = (/^V|rest-V|context/.test(name) && example?.name === "lookup") ? 1 : decimals + more;
    return decimal(value, places);
  }

  /* Where a number comes from */

  function origin(name) {
    const [what, a, b] = name.split(".");
    const range = (n, call) => Array.from({ length: n }, (_, i) => call(i));
    const { who } = found;
    const key = (j) => `${given.keyNames[j]}${Number(j) === who.own ? " itself" : ""}`;
    const keys = given.keys.length;
    const sub = (i) => subscript(Number(i) + 1);
    const model = "as the model made it: X · W, with the bias and rotation that it adds, if any";
    const exp = (j) => `e^(${said(`masked.${j}`)}${now.temperature === 1 ? "" : ` / ${decimal(now.temperature)}`} − ${minus(decimal(found.largest, decimals))})`;
    switch (what) {
      case "X": return { of: `x${sub(b)} of ${given.names[a]}`, note: "the encoding of the token: given", from: [] };
      case "x": return { of: `x${sub(a)} of ${who.name}`, note: "the encoding of the token: given", from: [`X.${now.query}.${a}`] };
      case "Wq": case "Wk": case "Wv": return { of: `a number of W_${{ q: "query", k: "key", v: "value" }[what[1]]}`, note: "a trained number: here from the generator, under the notes' own seed", from: [] };
      case "q": return example?.projections
        ? products(`q${sub(a)} of ${who.name}`, given.encodings[0].map((_, i) => [`x.${i}`, `Wq.${i}.${a}`]), given.encodings[0].map((_, i) => `X.${now.query}.${i}`))
        : { of: `q${sub(a)} of ${who.name}`, note: example ? "given" : model, from: [] };
      case "K": case "V": {
        const of = `${what === "K" ? "k" : "v"}${sub(b)} of ${given.keyNames[a]}`;
        if (!example?.projections) return { of, note: example ? "given" : model, from: [] };
        return products(of, given.encodings[0].map((_, i) => [`X.${a}.${i}`, `W${what === "K" ? "k" : "v"}.${i}.${b}`]));
      }
      case "score": return products(`score of ${key(a)}`, range(size, (i) => [`q.${i}`, `K.${a}.${i}`]));
      case "factor": return { of: "the scale", note: Math.abs(now.scale * Math.sqrt(size) - 1) < 1e-6 ? `1 / √${size}` : "set by hand or by the model", from: [] };
      case "scaled": return { of: `scaled score of ${key(a)}`, way: `${said(`score.${a}`)} × ${decimal(now.scale, 4)}`, from: [`score.${a}`, "factor"] };
      case "capped": return { of: `capped score of ${key(a)}`, way: `${decimal(given.softcap, 0)} × tanh(${said(`scaled.${a}`)} / ${decimal(given.softcap, 0)})`, from: [`scaled.${a}`] };
      case "bias": return { of: `bias of ${key(a)}`, note: "what the model adds for the distance of two tokens", from: [] };
      case "masked": {
        const before = given.softcap === null ? `scaled.${a}` : `capped.${a}`;
        if (found.visible !== null && !found.visible[a]) return { of: `masked score of ${key(a)}`, note: "hidden by the mask, so that its weight will be 0", from: [before] };
        const from = given.bias === null ? [before] : [before, `bias.${a}`];
        return { of: `masked score of ${key(a)}`, way: from.map((one, i) => (i ? minus(said(one)) : said(one))).join(" + "), note: given.bias === null ? "not hidden: as it was" : "", from };
      }
      case "exp": return { of: `exponential of ${key(a)}`, way: exp(a), note: "the largest is taken off first: that changes no weight, and nothing overflows", from: [`masked.${a}`] };
      case "sum": return { of: "their sum", way: [...range(keys, (j) => said(`exp.${j}`)), ...(given.rest !== null && found.hasRest ? [said("rest-exp")] : []), ...(given.sink !== null ? [said("sink-exp")] : [])].join(" + "), from: [...range(keys, (j) => `exp.${j}`), "rest-exp", "sink-exp"] };
      case "weight": return { of: `weight of ${key(a)}`, way: `${said(`exp.${a}`)} / ${said("sum")} = ${decimal(number(name), 4)}`, from: [`exp.${a}`, "sum"] };
      case "all": return { of: "all weights", note: "together they are one", from: [...range(keys, (j) => `weight.${j}`), "rest-weight", "sink-weight"] };
      case "context": {
        const pairs = range(keys, (j) => [`weight.${j}`, `V.${j}.${a}`]).filter(([weight]) => number(weight) > 0);
        if (found.hasRest && given.restValue !== null) pairs.push(["rest-weight", `rest-V.${a}`]);
        return products(`context${sub(a)} of ${who.name}`, pairs);
      }
      case "rest-masked": return { of: "all other tokens", note: `${count(given.others, "token")} that are not shown, as one: the log of the sum of their e^masked`, from: [] };
      case "sink-masked": return { of: "the sink", note: "a trained logit that takes part and has no value", from: [] };
      case "rest-V": return { of: "all other tokens", note: "their values, mixed by their own weights", from: [] };
      default: {
        const kind = what.split("-")[0];
        const of = kind === "rest" ? "all other tokens" : "the sink";
        return what.endsWith("exp")
          ? { of: `exponential of ${of}`, way: `e^(${said(`${kind}-masked`)} − ${minus(decimal(found.largest, decimals))})`, from: [`${kind}-masked`] }
          : { of: `weight of ${of}`, way: `${said(`${kind}-exp`)} / ${said("sum")}`, from: [`${kind}-exp`, "sum"] };
      }
    }
  }

  /** A sum of products of pairs of numbers. */
  function products(of, pairs, more = []) {
    const way = pairs.flatMap((pair, i) => pair.map((one, j) => {
      const text = /weight/.test(one) ? decimal(number(one), 4) : said(one, number(one), example ? 0 : 1);
      return `${j ? " × " : i ? " + " : ""}${i || j ? minus(text) : text}`;
    })).join("");
    return { of, way, from: [...pairs.flat(), ...more], isLong: pairs.length >= LONG };
  }

  function explain(name) {
    for (const lit of body.querySelectorAll(".lit, .pointed")) lit.classList.remove("lit", "pointed");
    pointed = name;
    if (name === null) {
      words.replaceChildren(found.isChanged ? "Changed by hand. Reset brings the numbers back." : "Point at a number, or go to one with Tab and the arrow keys, to see where it comes from.");
      return;
    }
    const { of, way, note, from, isLong } = origin(name);
    from.forEach((one) => cells.get(one)?.forEach((cell) => cell.classList.add("lit")));
    cells.get(name)?.forEach((cell) => cell.classList.add("pointed"));
    const result = made("b", { textContent: said(name) });
    const parts = isLong ? [result, " = ", way] : way ? [way, " = ", result] : [result];
    words.replaceChildren(made("b", { textContent: of }), " = ", ...parts, note ? made("span", { className: "faint", textContent: `, ${note}` }) : "");
    words.scrollTop = 0;
  }

  /* The page */

  function build() {
    cells.clear();
    refreshing.length = 0;
    const width = (n) => (n > FEW && !isWide ? FIRST : n);
    const { encodings, projections, key: K, value: V } = given;
    const axis = (letter, n) => Array.from({ length: n }, (_, i) => `${letter}${subscript(i + 1)}`);
    const across = ["", "", ...given.keys];
    const inner = width(size);
    const extras = [...(given.rest !== null ? [["rest", "all other tokens"]] : []), ...(given.sink !== null ? [["sink", "sink"]] : [])];
    const more = () => [["all other tokens", found.restWeight], ["the sink", found.sinkWeight]];
    const say = () => speaker({ name: found.who.name, own: found.who.own, names: given.keyNames });

    const steps = [];
    if (encodings) {
      const dims = encodings[0].length;
      steps.push(step("Embed", "X = encodings of the tokens", () => `Each token is ${count(dims, "number")}: ${found.who.name} is (${encodings[now.query].slice(0, 3).map((one) => decimal(one)).join(", ")}${dims > 3 ? ", …" : ""}).`,
        grid("X, the encodings", ["", ...axis("x", dims)], given.tokens.map((word, i) => ({ label: word, cells: encodings[i].map((_, j) => `X.${i}.${j}`), query: i })))));
      const outer = (role) => projections[role][0].length;
      const matrix = (role, W) => projections[role].map((row, i) => ({ label: `x${subscript(i + 1)}`, cells: [...(role === "query" ? [`x.${i}`] : []), ...row.map((_, j) => `${W}.${i}.${j}`)], side: role === "query" ? 1 : 0 }));
      const projected = (role, W, name) => given.tokens.map((word, i) => ({ label: word, cells: axis("", outer(role)).map((_, j) => `${name}.${i}.${j}`), result: true, first: i === 0 }));
      steps.push(step("Project", "X · W, three times", () => vectors("query", given.query, given.names),
        made("div", { className: "three" },
          titled("q = x · W_{query}", grid("W_query, and the query below", ["", "x", ...axis("q", outer("query"))], [
            ...matrix("query", "Wq"),
            { label: () => given.tokens[now.query], cells: [null, ...axis("", outer("query")).map((_, j) => `q.${j}`)], result: true, first: true },
          ])),
          titled("K = X · W_{key}", grid("W_key, and the keys below", ["", ...axis("k", outer("key"))], [...matrix("key", "Wk"), ...projected("key", "Wk", "K")])),
          titled("V = X · W_{value}", grid("W_value, and the values below", ["", ...axis("v", outer("value"))], [...matrix("value", "Wv"), ...projected("value", "Wv", "V")])),
        )));
    } else {
      const [x, w] = example ? ["", ""] : ["X = encodings of the tokens", "q = x · W_{query},  K = X · W_{key},  V = X · W_{value}"];
      const whence = `${example ? "No matrices here: query, keys and values are given" : "This head makes q, K and V of X, with the bias and rotation that the model adds, if any"}, in ${count(size, "number")} each.`;
      steps.push(
        step("Embed", x, () => (example ? "Each word is a direction." : "The layers below give each token its encoding.")),
        step("Project", w, () => `${whence} ${example ? "" : vectors("query", given.query, given.names)}`),
      );
    }

    steps.push(step("Score", "scores = q · Kᵀ", () => say().score(found.scores),
      grid("The query beside the keys, and the scores below", ["", "q", ...given.keys], [
        ...axis("", inner).map((_, i) => ({ label: String(i + 1), cells: [`q.${i}`, ...K.map((_, j) => `K.${j}.${i}`)], side: 1 })),
        ...(inner < size || (isWide && size > FEW) ? [{ more: size }] : []),
        { label: "score", cells: [null, ...K.map((_, j) => `score.${j}`)], result: true, first: true },
      ], "across")));

    steps.push(step("Scale", () => `scaled = scores × ${decimal(now.scale, 4)}`, () => say().scale(found.scores, now.scale, size),
      grid("The scaled scores", across, [{ label: "scaled", cells: ["factor", ...K.map((_, j) => `scaled.${j}`)], side: 1, result: true }], "across"),
      made("div", { className: "play" }, scaleSlider(), why())));

    if (given.softcap !== null) {
      steps.push(step("Cap", "capped = softcap · tanh(scaled / softcap)", () => `No score can leave the range from ${decimal(-given.softcap, 0)} to ${decimal(given.softcap, 0)}.`,
        grid("The capped scores", across, [{ label: "capped", cells: [null, ...K.map((_, j) => `capped.${j}`)], result: true }], "across")));
    }

    steps.push(step("Mask", given.bias === null ? "masked = scaled, −∞ where hidden" : "masked = scaled + position bias, −∞ where hidden", () => say().mask(found.masked),
      grid("The masked scores", [...across, ...extras.map(([, name]) => name)], [
        ...(given.bias === null ? [] : [{ label: "bias", cells: [null, ...K.map((_, j) => `bias.${j}`)] }]),
        { label: "masked", cells: [null, ...K.map((_, j) => `masked.${j}`), ...extras.map(([kind]) => `${kind}-masked`)], result: true },
      ], "across"),
      maskChoice()));

    steps.push(step("Softmax", () => (now.temperature === 1 ? "weight = e^{masked} / Σ e^{masked}" : "weight = e^{masked / τ} / Σ e^{masked / τ}"), () => {
      const { own } = found.who;
      const notes = example?.name === "poem" && own === 0 ? ` The word "write" is ${(100 * found.weights[0]).toFixed(0)} % similar to itself.` : "";
      const part = given.rest !== null && !found.hasRest ? ` With the sliders moved, only the ${count(given.keys.length, "token")} shown here take part.` : "";
      return say().softmax(found.weights, more()) + notes + part;
    },
      grid("Exponentials and weights", [...across, ...extras.map(([, name]) => name), "sum"], [
        { label: "exp", cells: [null, ...K.map((_, j) => `exp.${j}`), ...extras.map(([kind]) => `${kind}-exp`), "sum"] },
        { label: "weight", cells: [null, ...K.map((_, j) => `weight.${j}`), ...extras.map(([kind]) => `${kind}-weight`), "all"], result: true },
      ], "across"),
      temperatureSlider()));

    if (V === null) {
      steps.push(step("Mix", "context = weights · V", () => "The values were not recorded. watch(model, values=True) keeps them."));
    } else {
      const outer = V[0].length;
      const shown = width(outer);
      steps.push(step("Mix", "context = weights · V", () => say().mix(found.weights, found.context, more()),
        grid("The weights beside the values, and the context below", ["", "weight", ...axis("v", shown), ...(outer > FEW ? [{ more: outer }] : [])], [
          ...given.keys.map((word, j) => ({ label: word, cells: [`weight.${j}`, ...axis("", shown).map((_, c) => `V.${j}.${c}`)], side: 1 })),
          ...(given.rest !== null ? [{ label: "all other tokens", cells: ["rest-weight", ...axis("", shown).map((_, c) => (given.restValue === null ? null : `rest-V.${c}`))], side: 1 }] : []),
          { label: "context", cells: [null, ...axis("", shown).map((_, c) => `context.${c}`)], result: true, first: true },
        ], "mixing")));
    }

    body.replaceChildren(strip(), ...steps, words);
    steps.forEach((one, i) => one.querySelector("h2").prepend(made("span", { className: "number", textContent: i + 1 })));
    refresh();
  }

  function step(name, formula, sentence, ...parts) {
    const how = made("p", { className: "formula" });
    const what = made("p", {});
    refreshing.push(() => {
      what.textContent = sentence();
      how.replaceChildren(...maths(typeof formula === "string" ? formula : formula()));
    });
    const text = made("div", {}, made("h2", {}, name), how, what);
    return parts.length ? made("section", {}, text, made("div", { className: "numbers" }, ...parts)) : made("section", { className: "plain" }, text);
  }

  /** A table of numbers by their names. */
  function grid(name, head, rows, className = "") {
    const table = made("table", { className, data: { role: "grid", "aria-label": name } });
    const label = (one, scope) => {
      if (one && typeof one === "object") return made("th", { scope }, moreButton(one.more));
      const element = made(one === "" ? "td" : "th", { className: one === "" ? "blank" : "" });
      if (one !== "") element.scope = scope;
      if (typeof one === "function") refreshing.push(() => { element.textContent = element.title = one(); });
      else if (one !== "") { element.append(...maths(one)); element.title = element.textContent; }
      return element;
    };
    table.append(made("thead", {}, made("tr", {}, ...head.map((one) => label(one, "col")))));
    table.append(made("tbody", {}, ...rows.flatMap((row) => {
      if (row.more) return made("tr", { className: "more" }, made("td", { colSpan: 2, className: "blank" }, moreButton(row.more)));
      const line = made("tr", { className: row.result ? "result" : "" }, label(row.label, "row"),
        ...row.cells.map((one, i) => (one === null ? made("td", { className: "blank" }) : cell(one, i < (row.side ?? 0)))));
      if (row.query !== undefined) refreshing.push(() => line.classList.toggle("chosen", row.query === now.query));
      return row.first ? [made("tr", { className: "gap", data: { "aria-hidden": "true" } }), line] : [line];
    })));
    const first = table.querySelector("td[data-cell]");
    if (first) first.tabIndex = 0;
    return made("div", { className: `scroller ${className}` }, table);
  }

  function cell(name, isSide) {
    const element = made("td", { tabIndex: -1, className: isSide ? "side" : "" });
    element.dataset.cell = name;
    if (!cells.has(name)) cells.set(name, []);
    cells.get(name).push(element);
    return element;
  }

  function moreButton(all) {
    return button(isWide ? `first ${FIRST}` : `… ${all - FIRST} more`, isWide ? `Show the first ${FIRST} numbers` : `Show all ${all} numbers`, ({ target }) => {
      const all = () => [...body.querySelectorAll(".scroller button")];
      const which = all().indexOf(target);
      isWide = !isWide;
      build();
      centre();
      all()[which].focus();
    });
  }

  function titled(formula, table) {
    return made("div", {}, made("p", { className: "formula" }, ...maths(formula)), table);
  }

  /** The tokens: which of them asks, and how much of its attention each gets. */
  function strip() {
    const chip = (name, word) => made(name, { className: "word" }, made("b", { textContent: word }), made("small", {}));
    const queries = given.tokens.map((word, i) => Object.assign(chip("button", word), { title: `${given.names[i]} attends` }));
    const row = oneOf("The token that attends", "words", queries, () => now.query, (i) => {
      now.query = i;
      refresh();
      centre();
    });
    const turn = (from, text, title) => button(text, title, () => go({ ...told(), token: from, around: from }));
    const keys = given.isSelf ? queries : given.keys.map((word) => chip("span", word));
    const reset = button("Reset", "Put scale, temperature and mask back", () => { Object.assign(now, usual); refresh(); });
    refreshing.push(() => {
      keys.forEach((one, j) => { one.lastChild.textContent = percent(found.weights[j]); });
      reset.disabled = !found.isChanged;
    });
    const last = given.first + given.tokens.length;
    return made("div", { className: "strip" },
      ...(given.first > 0 ? [turn(Math.max(0, given.first - 1), "◂", "Earlier tokens")] : []),
      made("div", { className: "both" }, row, ...(given.isSelf ? [] : [made("div", { className: "words", tabIndex: 0, data: { role: "group", "aria-label": "The tokens attended to" } }, made("span", { className: "faint", textContent: "attends to" }), ...keys)])),
      ...(last < given.of ? [turn(last, "▸", "Later tokens")] : []),
      reset);
  }

  /** Buttons of which one is chosen: one stop for Tab, with arrow keys inside. */
  function oneOf(name, className, buttons, get, set) {
    const row = made("div", { className, data: { role: "radiogroup", "aria-label": name } }, ...buttons);
    buttons.forEach((one, i) => {
      one.type = "button";
      one.setAttribute("role", "radio");
      one.addEventListener("click", () => set(i));
    });
    row.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      set((get() + way + buttons.length) % buttons.length);
      buttons[get()].focus();
    });
    refreshing.push(() => buttons.forEach((one, i) => {
      one.setAttribute("aria-checked", String(i === get()));
      one.tabIndex = i === get() ? 0 : -1;
    }));
    return row;
  }

  /** Bring the query into sight, among the tokens and in the tables. */
  function centre() {
    for (const [row, one] of [
      [body.querySelector(".words"), body.querySelector("[aria-checked=true]")],
      [body.querySelector(".scroller.across"), cells.get(`score.${found.who.own ?? 0}`)[0]],
    ]) row.scrollLeft = one.offsetLeft - row.offsetLeft - (row.clientWidth - one.offsetWidth) / 2;
  }

  /* What can be changed */

  /** A slider over powers of two, with marks to which it jumps. @param {[number, string][]} marks */
  function slider(name, [least, most], marks, get, set, show) {
    const input = made("input", { type: "range", min: least, max: most, step: 0.05, data: { "aria-label": name } });
    const output = made("span", { className: "told" });
    const at = (value) => Math.min(most, Math.max(least, Math.log2(value)));
    const row = made("div", { className: "marks" }, ...marks.map(([value, text]) => {
      const mark = button("", `${name} ${text}`, () => { set(value); refresh(); });
      mark.append(...maths(text));
      mark.style.left = `${(100 * (at(value) - least)) / (most - least)}%`;
      return mark;
    }));
    // A pointer cannot hit a mark but by jumping to it; with the keyboard one must be able to leave it.
    let isDragged = false;
    input.addEventListener("pointerdown", () => { isDragged = true; });
    input.addEventListener("pointerup", () => { isDragged = false; });
    input.addEventListener("pointercancel", () => { isDragged = false; });
    input.addEventListener("input", () => {
      const near = isDragged && marks.find(([value]) => Math.abs(at(value) - input.value) < SNAP);
      set(near ? near[0] : 2 ** Number(input.value));
      refresh();
    });
    refreshing.push(() => {
      input.value = at(get());
      output.replaceChildren(...maths(show(get())));
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return made("div", { className: "slider" }, made("span", {}, name), output, input, row);
  }

  function scaleSlider() {
    const root = Math.sqrt(size);
    const marks = [[1, `1/√${size}`], [root, "1"]];
    const own = usual.scale * root;
    if (!marks.some(([value]) => Math.abs(value / own - 1) < 1e-6)) marks.push([own, "as recorded"]);
    const most = Math.max(3, Math.log2(root) + 1);
    return slider("Scale", [-most, most], size === 1 ? marks.slice(1) : marks, () => now.scale * root, (times) => {
      const mark = [[1 / root, 1], [1, root], [usual.scale, own]].find(([, value]) => Math.abs(value / times - 1) < 1e-9);
      now.scale = mark ? mark[0] : times / root;
    }, (times) => `${decimal(now.scale, 4)} = ${decimal(times)} / √${size}`);
  }

  /** What the square root is for, in the numbers at hand. */
  function why() {
    const element = made("p", { className: "faint" });
    refreshing.push(() => {
      const i = now.query;
      const largest = (factor) => Math.max(...attend({
        query: given.query[i], keys: given.key, scale: factor, softcap: given.softcap, bias: given.bias === null ? null : given.bias[i],
        visible: found.visible, temperature: now.temperature, sink: given.sink,
      }).weights);
      const among = given.rest === null ? "" : `among these ${given.keys.length} tokens alone `;
      element.textContent = `Why the root? A product of ${count(size, "number")} spreads √${size} = ${Math.sqrt(size).toFixed(2)} times as widely as one. `
        + `Unscaled (× 1) ${among}the largest weight would be ${percent(largest(1))}; with 1/√${size} it is ${percent(largest(1 / Math.sqrt(size)))}.`.replaceAll(" %", "\u00a0%");
    });
    return element;
  }

  function temperatureSlider() {
    return slider("Temperature", TEMPERATURES, [[1, "1"]], () => now.temperature, (value) => { now.temperature = value; }, (value) => `τ = ${decimal(value)}`);
  }

  function maskChoice() {
    const rules = given.rules.map(([rule]) => rule);
    const buttons = given.rules.map(([, text]) => made("button", { textContent: text }));
    const row = made("div", { className: "rules" }, oneOf("Mask", "segments", buttons, () => rules.indexOf(now.rule), (i) => {
      now.rule = rules[i];
      refresh();
    }));
    if (given.offset === null) return row;
    const most = given.keys.length;
    const input = made("input", { type: "range", min: 1, max: most, step: 1, data: { "aria-label": "Tokens of the window" } });
    const output = made("span", { className: "told" });
    input.addEventListener("input", () => { Object.assign(now, { rule: "window", width: Number(input.value) }); refresh(); });
    refreshing.push(() => {
      input.value = now.width;
      output.textContent = `of ${now.width}: ${now.width === 1 ? "itself alone" : `itself and ${now.width - 1} before`}`;
    });
    row.append(input, output);
    return row;
  }

  /* Following what is done */

  function refresh() {
    compute();
    for (const [name, places] of cells) {
      const text = said(name);
      for (const place of places) if (place.textContent !== text) place.textContent = text;
    }
    refreshing.forEach((call) => call());
    shadeAll();
    explain(pointed !== null && cells.has(pointed) ? pointed : null);
    keep();
  }

  function told() {
    const where = example ? { example: example.name, query: now.query } : { sheet, item, head, token: current(), ...(around ? { around } : {}) };
    const changed = (name, shown = now[name]) => (now[name] === usual[name] ? {} : { [name === "rule" ? "mask" : name]: shown });
    return { ...where, ...changed("scale", Number(now.scale.toPrecision(6))), ...changed("temperature", Number(now.temperature.toPrecision(6))), ...changed("rule"), ...(now.rule === "window" ? { width: now.width } : {}) };
  }

  function shadeAll() {
    const { table } = page.theme;
    const paint = (element, part) => {
      const { paper, ink } = shade(part, table);
      element.style.backgroundColor = part > 0 ? paper : "";
      element.style.color = part > 0 ? ink : "";
    };
    const spread = (numbers) => {
      const seen = numbers.filter(Number.isFinite);
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      return (one) => (Number.isFinite(one) && high > low ? 0.05 + (0.4 * (one - low)) / (high - low) : 0);
    };
    const rows = { score: found.scores, scaled: found.scaled, capped: found.capped, masked: found.masked };
    for (const [name, numbers] of Object.entries(rows)) {
      const part = spread(numbers);
      numbers.forEach((one, j) => cells.get(`${name}.${j}`)?.forEach((place) => paint(place, part(one))));
    }
    // Weights of many tokens are all small: what is darkest grows with the largest, and more slowly.
    const top = Math.sqrt(Math.max(...found.weights)) || 1;
    for (const kind of ["exp", "weight"]) {
      given.keys.forEach((_, j) => cells.get(`${kind}.${j}`)?.forEach((place) => paint(place, found.weights[j] / top)));
      for (const more of ["rest", "sink"]) cells.get(`${more}-${kind}`)?.forEach((place) => paint(place, found[`${more}Weight`] / top));
    }
    const chips = body.querySelectorAll(given.isSelf ? ".words button" : ".words span.word");
    chips.forEach((one, j) => paint(one, found.weights[j] / top));
  }

  function listen() {
    const nameOf = (target) => target.closest?.("td[data-cell]")?.dataset.cell ?? null;
    body.addEventListener("pointerover", (event) => {
      const name = nameOf(event.target);
      if (name !== null) explain(name);
      else if (!words.contains(event.target)) explain(nameOf(view.getRootNode().activeElement ?? view));
    }, { signal });
    body.addEventListener("focusin", (event) => {
      const place = event.target.closest("td[data-cell]");
      if (place === null) return;
      for (const other of place.closest("table").querySelectorAll("td[tabindex='0']")) other.tabIndex = -1;
      place.tabIndex = 0;
      explain(place.dataset.cell);
    }, { signal });
    body.addEventListener("keydown", (event) => {
      const place = event.target.closest?.("td[data-cell]");
      if (!place) return;
      const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -Infinity], End: [0, Infinity] }[event.key];
      if (event.key === "Escape") { place.blur(); explain(null); }
      if (!way) return;
      event.preventDefault();
      const line = (row) => [...row.children].filter((one) => one.dataset.cell);
      if (way[1] !== 0) {
        const all = line(place.parentElement);
        all[Math.max(0, Math.min(all.length - 1, all.indexOf(place) + way[1]))].focus();
        return;
      }
      let row = place.parentElement;
      do row = way[0] > 0 ? row.nextElementSibling : row.previousElementSibling; while (row && line(row).length === 0);
      if (!row) return;
      const across = place.cellIndex;
      line(row).reduce((best, one) => (Math.abs(one.cellIndex - across) < Math.abs(best.cellIndex - across) ? one : best)).focus();
    }, { signal });
    // The same token stays above itself from step to step.
    body.addEventListener("scroll", ({ target }) => {
      if (!target.classList.contains("across")) return;
      for (const other of body.querySelectorAll(".scroller.across")) if (other.scrollLeft !== target.scrollLeft) other.scrollLeft = target.scrollLeft;
    }, { signal, capture: true });
  }

  function csv() {
    const tables = [...body.querySelectorAll("section")].flatMap((section) => {
      const name = section.querySelector("h2").lastChild.textContent.toLowerCase();
      return [...section.querySelectorAll("tbody tr")].flatMap((row) => [...row.children].filter((one) => one.dataset.cell).map((one) => {
        const column = row.closest("table").tHead.rows[0].cells[one.cellIndex].textContent;
        return [name, one.dataset.cell, row.cells[0].textContent, column, number(one.dataset.cell)];
      }));
    });
    return [["step", "name", "row", "column", "number"], ...tables];
  }
}

/* What the numbers are of, whether an example or a recording gives them */

function ofExample(one) {
  const { tokens, encodings, projections } = one;
  const of = (role) => (encodings ? encodings.map((x) => project(x, projections[role])) : one[role]);
  const keys = one.keys ?? tokens;
  const isSelf = one.keys === undefined;
  const query = of("query");
  const rules = [["none", "none"], ...(isSelf ? [["causal", "causal"], ["window", "a window"]] : [])];
  return {
    ...named({ tokens, keys, isSelf, offset: isSelf ? 0 : null }),
    encodings, projections, query, key: of("key"), value: of("value"), keyDim: query[0].length,
    scale: one.scale ?? 1 / Math.sqrt(query[0].length), rule: one.causal ? "causal" : "none", rules,
    visible: null, bias: null, softcap: null, sink: null, rest: null, restValue: null, about: one.about, of: tokens.length, others: 0,
  };
}

function ofHead(one, sheet) {
  const isSelf = one.offset !== null && one.first_key === one.first + one.offset && one.tokens.length === one.keys.length;
  const rules = [
    ...(one.visible === null ? [] : [["recorded", "as recorded"]]), ["none", "none"],
    ...(one.offset === null ? [] : [["causal", "causal"], ["window", "a window"]]),
  ];
  const others = sheet.keys - one.keys.length;
  const part = others > 0 ? [`Of ${sheet.keys} tokens, those from ${one.first_key} to ${one.first_key + one.keys.length - 1} are shown; all others count in each softmax as one.`] : [];
  return {
    ...named({ tokens: one.tokens, keys: one.keys, first: one.first, firstKey: one.first_key, isSelf, offset: one.offset }),
    query: one.query, key: one.key, value: one.value, keyDim: one.query[0].length,
    scale: one.scale, rule: one.visible === null ? "none" : "recorded", rules,
    visible: one.visible, bias: one.bias, softcap: one.softcap, sink: one.sink, rest: one.rest, restValue: one.rest_value,
    about: [one.title, ...part], of: sheet.queries, others,
  };
}

function named({ tokens, keys, first = 0, firstKey = 0, isSelf, offset }) {
  const names = tokens.map((_, i) => quote(tokens, i, first));
  const keyNames = isSelf ? names : keys.map((_, j) => quote(keys, j, firstKey));
  // Which of the keys a query is, if it is any of them.
  const own = (i) => {
    const at = offset === null ? -1 : first + i + offset - firstKey;
    return at >= 0 && at < keys.length ? at : null;
  };
  return { tokens, keys, names, keyNames, first, firstKey, isSelf, offset, who: (i) => ({ name: names[i], own: own(i) }) };
}

/** A negative number in brackets, where it follows a sign. */
function minus(text) {
  return text.startsWith("−") ? `(${text})` : text;
}

function subscript(number) {
  return String(number).replace(/\d/g, (digit) => String.fromCharCode(0x2080 + Number(digit)));
}

/** Text in which _ and ^ set what follows lower or higher: one letter, or {several}. */
function maths(text) {
  const parts = text.split(/([_^](?:\{[^}]*\}|[\p{L}\d]))/u);
  return parts.filter(Boolean).map((part) => {
    if (!/^[_^]./.test(part)) return part;
    const inner = part.slice(1).replace(/^\{|\}$/g, "");
    return made(part[0] === "_" ? "sub" : "sup", {}, ...(part[1] === "{" ? maths(inner.replace(/_(\p{L})/gu, "_$1")) : [inner]));
  });
}
