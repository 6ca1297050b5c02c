// All heads as thumbnails: where they stand in the model, or in the order of what they do.
import { whole } from "./address.js";
import { percent, picture } from "./colours.js";
import { choice, itemChoice, made, short } from "./parts.js";

const MEASURES = {
  entropy: ["entropy", "how widely it looks, in nats"],
  distance: ["distance", "positions between a token and what it looks at"],
  first: ["first token", "the share that goes to the first token"],
  itself: ["itself", "the share that goes to the token itself"],
  previous: ["previous token", "the share that goes to the token before"],
  next: ["next token", "the share that goes to the token after"],
  duplicates: ["duplicates", "the share that goes to the same token elsewhere"],
  induction: ["induction", "the share that goes to what followed the same token earlier"],
  punctuation: ["punctuation", "the share that goes to punctuation and marks"],
};
const COUNTS = new Set(["entropy", "distance"]); // the others are shares
const CLARK = "Clark et al. 2019, What Does BERT Look At?";
const ROLES = { // as lens.heads names them
  "previous token": ["Each token looks at the one just before it. Induction is built on that: it tells what a token came after.", "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"],
  "next token": ["Each token looks at the one just after it.", CLARK],
  itself: ["Each token looks at itself most of all.", CLARK],
  induction: ["Each token looks for an earlier place where it stood already, and there at what came next. So a model goes on with what it has read before.", "Olsson et al. 2022, In-context Learning and Induction Heads"],
  duplicates: ["Each token looks at other places where the same token stands.", "Wang et al. 2023, Interpretability in the Wild"],
  "first token": ["Most attention goes to the first token, whatever it says: a sink, where a head rests that finds nothing to look at.", "Xiao et al. 2024, Efficient Streaming Language Models with Attention Sinks"],
  punctuation: ["Most attention goes to punctuation, line breaks and the model's own marks. That may be a rest as well.", CLARK],
  broad: ["Attention is spread over all that can be seen, almost evenly: much like a mean of all tokens.", CLARK],
};
const NONE = ["No behaviour that has a name takes 40 % of this head's attention.", ""];
const STACKS = { e: "Encoder", d: "Decoder", x: "Cross-attention: what the decoder reads in the encoder" };
const SHORT = { e: "encoder", d: "decoder", x: "cross-attention" };
const GAP = 8; // pixels between thumbnails
const LABEL = 34; // and of the number of a layer
const SIZE = { least: 54, ranked: 88, usual: 110, most: 208 };
const ROWS = 2.6; // of thumbnails that a window holds at least, while they are no smaller than usual

export async function overview(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  let by = Object.hasOwn(MEASURES, asked.get("sort")) ? asked.get("sort") : "layer";
  let role = Object.hasOwn(ROLES, asked.get("behaviour")) ? asked.get("behaviour") : "";
  const most = about.sheets.reduce((best, one, i) => (one.items > about.sheets[best].items ? i : best), 0);
  const item = whole(asked, "item", about.sheets[most].items - 1);
  const cards = about.sheets.flatMap((sheet, i) => Array.from({ length: sheet.heads }, (_, head) => card(i, sheet, head)));
  const cardOf = new Map(cards.map((one) => [one.element, one]));
  const rows = new Map(); // what each head does
  const cardAt = new Map(cards.map((one) => [`${one.sheet}.${one.head}`, one]));
  let told = "measuring heads";
  let pointed = cardAt.get(`${asked.get("sheet")}.${asked.get("head")}`);

  const list = made("div", { className: "list", data: { role: "group", "aria-label": "Heads. Arrow keys move from one to the next; Enter opens its map." } });
  const panel = made("section", { className: "panel", tabIndex: 0, data: { "aria-label": "About the head" } });
  view.append(made("div", { className: "overview" }, list, panel));
  const behaviours = choice("Behaviour", [["", "all"], ...Object.keys(ROLES).map((name) => [name, name])], role, (value) => { role = value; keep(); arrange(); });
  controls.append(
    choice("Sort by", [["layer", "layers"], ...Object.entries(MEASURES).map(([key, [name]]) => [key, name])], by, (value) => { by = value; keep(); arrange(); }),
    behaviours,
    itemChoice(about.sheets, most, item, (value) => page.go("overview", { ...kept(), item: value })),
  );
  listen();
  arrange();
  explain();
  theme.onChange(() => cards.forEach(paint));
  page.offer({ csv });
  const resized = new ResizeObserver(resize);
  resized.observe(list);
  signal.addEventListener("abort", () => resized.disconnect());
  await Promise.all([thumbnails(), measures()]);

  function kept() {
    const token = asked.get("token");
    return {
      ...(by === "layer" ? {} : { sort: by }), ...(role ? { behaviour: role } : {}), ...(item ? { item } : {}),
      ...(pointed ? { sheet: pointed.sheet, head: pointed.head } : {}), ...(token === null ? {} : { token }),
    };
  }

  function keep() {
    page.keep(kept());
  }

  /* What is shown */

  function count(name) {
    return [...rows.values()].filter((row) => row.role === name).length;
  }

  function has(one) {
    return !role || rows.get(one)?.role === role;
  }

  /** As the library sorts: the largest first, ties as they stand, what is unknown last. */
  function inOrder() {
    const wanted = cards.filter(has);
    if (by === "layer") return wanted;
    const value = (one) => rows.get(one)?.[by] ?? -Infinity;
    return wanted.sort((a, b) => value(b) - value(a) || 0);
  }

  function arrange() {
    const focused = cardOf.get(view.getRootNode().activeElement);
    cards.forEach(label);
    const shown = inOrder();
    list.classList.toggle("ranked", by !== "layer");
    shown.forEach((one) => { one.element.style.gridArea = ""; });
    list.replaceChildren(...(by === "layer" ? groups(shown) : [made("div", { className: "grid" }, ...shown.map((one) => one.element))]));
    if (!shown.length) list.append(made("p", { className: "none", textContent: rows.size < cards.length ? "None so far." : "No head does this clearly." }));
    const stop = [focused, pointed, shown[0]].find((one) => shown.includes(one));
    cards.forEach((one) => { one.element.tabIndex = one === stop ? 0 : -1; });
    if (focused === stop) stop?.element.focus({ preventScroll: true });
    resize();
    tell(shown.length);
  }

  /** Layers below one another and heads side by side, for each recording and each of its stacks. */
  function groups(shown) {
    const found = new Map();
    about.sheets.forEach((sheet, i) => {
      const name = `${sheet.recording}/${sheet.stack}`;
      const heads = shown.filter((one) => one.sheet === i);
      if (!heads.length) return;
      if (!found.has(name)) found.set(name, []);
      found.get(name).push([sheet, heads]);
    });
    const several = about.recordings.length > 1;
    const ofStack = ({ recording, stack }) => [several && about.recordings[recording].title, STACKS[stack]].filter(Boolean).join(" · ");
    return [...found.values()].flatMap((layers) => {
      const [first] = layers[0];
      const count = layers.reduce((top, [sheet]) => Math.max(top, sheet.heads), 0);
      const title = ofStack(first);
      // What stays in sight when heads scroll comes after them, so that exports draw it above.
      const put = (element, row, column) => { element.style.gridArea = `${row} / ${column}`; return element; };
      const faint = (className, textContent, title = "") => made("span", { className, textContent, title, data: { "aria-hidden": "true" } });
      const grid = made("div", { className: "grid" },
        ...layers.flatMap(([, some], i) => some.map((one) => put(one.element, i + 2, one.head + 2))),
        ...layers.map(([sheet], i) => put(faint("layer", sheet.layer, sheet.name), i + 2, 1)),
        ...Array.from({ length: count }, (_, head) => put(faint("number", head), 1, head + 2)),
        put(faint("corner", "head"), 1, 1));
      grid.style.setProperty("--heads", count);
      return title ? [made("h2", { textContent: title }), grid] : [grid];
    });
  }

  /** As large as there is room for. */
  function resize() {
    const { clientWidth: width, clientHeight: height } = list;
    const heads = about.sheets.reduce((top, sheet) => Math.max(top, sheet.heads), 0);
    const wide = Math.floor((width - 24 - LABEL) / heads) - GAP;
    const high = Math.floor((height - 30) / ROWS) - 34;
    const least = by === "layer" ? SIZE.least : SIZE.ranked; // numbers stand below them
    list.style.setProperty("--size", `${Math.max(least, Math.min(SIZE.most, wide, Math.max(SIZE.usual, high)))}px`);
  }

  function tell(count) {
    const parts = [told || (role ? `${count} of ${cards.length} heads: ${role}` : `${cards.length} heads`)];
    if (by !== "layer") parts.push(`from the highest to the lowest: ${MEASURES[by][0]}, ${MEASURES[by][1]}`);
    say(parts.join(" · "));
  }

  /* What is known */

  async function thumbnails() {
    for (let i = 0; i < about.sheets.length; i++) {
      let found;
      try {
        found = await source.numbers(`thumbnails/${i}/${Math.min(item, about.sheets[i].items - 1)}`, signal);
      } catch (error) {
        if (signal.aborted) return;
        told = error.message;
        tell(inOrder().length);
        continue;
      }
      const { values, shape: [, height, width] } = found;
      for (const one of cards.filter((each) => each.sheet === i)) {
        const start = one.head * height * width;
        // The root of each share: what is weak shows, and what is strong stays apart from it.
        const own = values.subarray(start, start + height * width);
        const top = own.reduce((so, value) => Math.max(so, value), 0) || 1;
        Object.assign(one, { values: own.map((value) => Math.sqrt(value / top)), height, width });
        paint(one);
      }
    }
  }

  /** Each time it is asked, one sheet more is measured. */
  async function measures() {
    for (let done = -1; !signal.aborted;) {
      let found;
      try {
        found = await source.json("heads", signal);
      } catch (error) {
        if (signal.aborted) return;
        told = `not measured: ${error.message}`;
        break;
      }
      for (const row of found.rows) {
        const one = cardAt.get(`${row.sheet}.${row.head}`);
        if (one) rows.set(one, row);
      }
      const isOver = found.done === done || found.done >= found.of;
      done = found.done;
      told = found.done < found.of ? `measuring heads: ${done} of ${found.of} layers` : "";
      if (isOver) {
        if (told) told = `${done} of ${found.of} layers are measured`;
        break;
      }
      learn();
    }
    if (signal.aborted) return;
    learn();
    for (const option of behaviours.querySelectorAll("option")) if (option.value) option.textContent = `${option.value} (${count(option.value)})`;
  }

  /** Show what is known now. */
  function learn() {
    if (by === "layer" && !role) {
      cards.forEach(label);
      tell(cards.length);
    } else arrange();
    explain();
  }

  function csv() {
    const names = Object.keys(MEASURES);
    const several = about.recordings.length > 1;
    const lines = inOrder().filter((one) => rows.has(one)).map((one) => {
      const row = rows.get(one);
      return [...(several ? [about.recordings[one.of.recording].title] : []), row.name, row.label, row.head, row.role, ...names.map((name) => row[name])];
    });
    return [[...(several ? ["recording"] : []), "module", "layer", "head", "role", ...names], ...lines];
  }

  /* One head */

  function card(sheet, of, head) {
    const canvas = made("canvas", {});
    const note = made("span", { className: "note" });
    const element = made("button", { type: "button", className: "head" }, canvas, note);
    const recording = about.recordings.length > 1 ? short(about.recordings[of.recording].title, 40) : "";
    const name = [`layer ${of.stack}${of.layer}, head ${head}`, SHORT[of.stack], recording].filter(Boolean).join(", ");
    return { sheet, of, head, element, canvas, note, name };
  }

  function said(key, value) {
    if (value === null) return "–";
    return COUNTS.has(key) ? value.toFixed(2) : percent(Math.min(1, value));
  }

  function label(one) {
    const row = rows.get(one);
    const number = by === "layer" || !row ? "" : said(by, row[by]);
    const place = `${one.of.stack}${one.of.layer}.${one.head}`;
    if (by === "layer") one.note.textContent = row?.role ?? "";
    else one.note.replaceChildren(made("b", { textContent: place }), ` ${number}`);
    one.element.setAttribute("aria-label", [one.name, row?.role, number && `${MEASURES[by][0]} ${number}`].filter(Boolean).join(", "));
    if (row) one.element.setAttribute("aria-description", (ROLES[row.role] ?? NONE)[0]);
  }

  function paint(one) {
    if (!one.values) return;
    Object.assign(one.canvas, { width: one.width, height: one.height });
    one.canvas.getContext("2d").putImageData(picture(one.values, one.width, one.height, 1, false, theme.table), 0, 0);
    if (one === pointed) explain();
  }

  /** What the panel says of the head that is pointed at. */
  function explain() {
    if (!pointed) {
      const found = Object.keys(ROLES).filter(count).map((name) => `${name} (${count(name)})`);
      panel.replaceChildren(
        made("h2", { textContent: "All heads at a glance" }),
        made("p", { textContent: "Each picture is a head. A row of it is a token that attends, a column one that is attended to; a stronger colour is a larger weight, on a scale of its own." }),
        made("p", { textContent: "Point at a head, or move to it with Tab and the arrow keys, and read here what it does; press it to see its map." }),
        made("p", { textContent: found.length ? `Here: ${found.join(", ")}.` : "" }),
        made("p", { className: "faint", textContent: "A head is named after a behaviour that accounts for at least 40 % of its attention, or “broad” if its entropy is at least 90 % of the maximum." }),
      );
      return;
    }
    const row = rows.get(pointed);
    const { of } = pointed;
    const where = [about.recordings.length > 1 && short(about.recordings[of.recording].title, 40), SHORT[of.stack]].filter(Boolean).join(", ");
    const large = made("canvas", { width: pointed.canvas.width, height: pointed.canvas.height, data: { "aria-hidden": "true" } });
    if (pointed.values) large.getContext("2d").drawImage(pointed.canvas, 0, 0);
    const parts = [made("h2", { textContent: `Layer ${of.layer}, head ${pointed.head}` }), made("p", { className: "faint", textContent: where }), large];
    if (!row) parts.push(made("p", { className: "faint", textContent: "Not measured yet." }));
    else {
      const [what, from] = ROLES[row.role] ?? NONE;
      parts.push(made("h3", { textContent: row.role || "no clear behaviour" }), made("p", { textContent: what }));
      if (from) parts.push(made("p", { className: "faint", textContent: from }));
      parts.push(made("div", { className: "measures" }, ...Object.entries(MEASURES).flatMap(([key, [name]]) => {
        const top = COUNTS.has(key) ? [...rows.values()].reduce((so, one) => Math.max(so, one[key] ?? 0), 0) || 1 : 1;
        const bar = made("i", {});
        bar.style.width = `${100 * Math.min(1, (row[key] ?? 0) / top)}%`;
        const className = key === by ? "by" : "";
        return [made("span", { className, textContent: name }), made("span", { className: "bar" }, bar), made("span", { className: `value ${className}`, textContent: said(key, row[key]) })];
      })));
      if (of.items > 1) parts.push(made("p", { className: "faint", textContent: `Measures are averages over all ${of.items} texts.` }));
    }
    panel.replaceChildren(...parts.filter((part) => part.tagName !== "P" || part.textContent));
  }

  /* Hands */

  function point(target) {
    const one = cardOf.get(target?.closest?.(".head"));
    if (!one || one === pointed) return;
    pointed?.element.classList.remove("pointed");
    pointed = one;
    one.element.classList.add("pointed");
    explain();
  }

  function listen() {
    list.addEventListener("pointerover", (event) => point(event.target), { signal });
    list.addEventListener("focusin", (event) => {
      point(event.target);
      cards.forEach((one) => { one.element.tabIndex = one === pointed ? 0 : -1; });
      keep();
    }, { signal });
    list.addEventListener("click", (event) => {
      const one = cardOf.get(event.target.closest(".head"));
      if (one) page.go("map", { sheet: one.sheet, head: one.head, item: Math.min(item, one.of.items - 1) });
    }, { signal });
    list.addEventListener("keydown", (event) => {
      const to = next(event.key, event.target);
      if (!to) return;
      event.preventDefault();
      to.focus();
    }, { signal });
  }

  /** The head that a key leads to. */
  function next(key, from) {
    const all = [...list.querySelectorAll(".head")];
    const at = all.indexOf(from);
    if (at < 0) return null;
    const straight = { ArrowLeft: all[at - 1], ArrowRight: all[at + 1], Home: all[0], End: all.at(-1) };
    if (key in straight) return straight[key];
    if (key !== "ArrowUp" && key !== "ArrowDown") return null;
    const way = key === "ArrowUp" ? -1 : 1;
    const here = from.getBoundingClientRect();
    const far = (one) => {
      const there = one.getBoundingClientRect();
      const down = (there.top - here.top) * way;
      return down > here.height / 2 ? down * 1e4 + Math.abs(there.left - here.left) : Infinity;
    };
    const best = all.map((one) => [far(one), one]).reduce((so, one) => (one[0] < so[0] ? one : so), [Infinity, null]);
    return best[1];
  }
}
