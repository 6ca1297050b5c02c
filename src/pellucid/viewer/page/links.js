// Two columns of words and a curve for each weight; or the same weights as a grid, which for a
// translator has whole words: how much of each source word a target word was made of.
import { whole } from "./address.js";
import { percent, shade } from "./colours.js";
import { button, choice, itemChoice, made, short } from "./parts.js";
import { plain, words } from "./source.js";

const MOST = { links: 200, grid: 64 }; // tokens of one side that are shown at once
const MOST_LINES = 20_000;
const ROW = { least: 19, most: 44 }; // pixels of a word's line
const GAP = { least: 150, most: 460 }; // between the columns
const SHARE = 58; // pixels of a percentage beside a word
const BOX = 11; // and of the box of a head
const LEAST = 10; // where the slider of weights stands at first: 1 %
// Colours that stay apart in every kind of colour blindness (Okabe and Ito 2008) and on this paper,
// and what to write on them. Heads bear their number wherever they bear a colour.
const INK = "#0b121a";
const SHARED = [["#e69f00", INK], ["#009e73", INK], ["#cc79a7", INK]];
const HEADS = {
  light: [["#0072b2", "#ffffff"], ...SHARED, ["#56b4e9", INK], ["#d55e00", INK], ["#12202e", "#ffffff"]],
  dark: [["#56b4e9", INK], ...SHARED, ["#f0e442", INK], ["#d55e00", INK], ["#e5eef5", INK]],
};

export async function links(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  const { sheets } = about;
  const firstCross = sheets.findIndex((one) => one.is_cross);
  const now = { sheet: whole(asked, "sheet", sheets.length - 1, Math.max(0, firstCross)) };
  const sheetOf = () => sheets[now.sheet];
  now.item = whole(asked, "item", sheetOf().items - 1);
  now.picture = asked.get("picture") ?? "";
  if (!Object.hasOwn(MOST, now.picture)) now.picture = sheetOf().is_cross ? "grid" : "links";
  now.head = asked.get("head") ?? (sheetOf().is_cross ? "align" : "");
  if (!sheetOf().is_cross && now.head === "align") now.head = "";
  now.least = whole(asked, "least", 100, LEAST);
  now.off = new Set((asked.get("off") ?? "").split(".").filter((one) => /^\d{1,9}$/.test(one)).map(Number));
  now.pinned = ["token", "key"].map((name) => (asked.has(name) ? { side: name === "token" ? "queries" : "keys", at: whole(asked, name, sheetOf()[name === "token" ? "queries" : "keys"] - 1) } : null)).find(Boolean) ?? null;
  const middle = (side) => (now.pinned?.side === side || (!sheetOf().is_cross && now.pinned) ? Math.max(0, now.pinned.at - 50) : 0);
  now.first = { queries: whole(asked, "first", sheetOf().queries - 1, middle("queries")), keys: whole(asked, "firstkey", sheetOf().keys - 1, middle("keys")) };
  let pointed = null; // the word under the pointer, or with the focus
  let shown = null; // what is drawn: see load
  let turn = 0; // of loading; what comes late is not drawn
  let wanted = new Set(); // paths of the answers that are drawn
  let csv = () => [];
  const body = made("div", { className: "links" });
  const bars = [made("span", {}), made("span", {}), made("span", {})];
  view.append(body);
  controls.append(...bars, itemChoice(sheets, now.sheet, now.item, (item) => page.go("links", { ...told(), item })));
  page.offer({ csv: () => csv(), needs: () => wanted });
  theme.onChange(() => { if (shown) draw(); });
  const resized = new ResizeObserver(() => { if (shown?.place) shown.place(); });
  resized.observe(view);
  signal.addEventListener("abort", () => resized.disconnect());
  signal.addEventListener("abort", () => { turn = -1; });
  fill();
  await load();
  const kept = body.querySelector("[aria-pressed=true].word")?.getBoundingClientRect();
  if (kept) view.scrollTop += (kept.top + kept.bottom) / 2 - view.getBoundingClientRect().top - view.clientHeight / 2;

  function told() {
    const { sheet, item, picture, head, least, first, off, pinned } = now;
    return {
      sheet, item, head, picture,
      ...(least === LEAST ? {} : { least }),
      ...(off.size ? { off: [...off].sort((a, b) => a - b).join(".") } : {}),
      ...(first.queries ? { first: first.queries } : {}),
      ...(first.keys && sheetOf().is_cross ? { firstkey: first.keys } : {}),
      ...(pinned ? { [pinned.side === "queries" ? "token" : "key"]: pinned.at } : {}),
    };
  }

  /* What is chosen */

  function isAlignment() {
    return now.head === "align";
  }

  function layerOptions() {
    const several = about.recordings.length > 1;
    const of = ({ recording }) => (several ? `${short(about.recordings[recording].title, 28)}: ` : "");
    return sheets.flatMap((one, i) => {
      const isFirst = one.is_cross && sheets.findIndex((other) => other.is_cross && other.recording === one.recording) === i;
      const name = `${of(one)}${one.stack}${one.layer}${one.is_cross ? ", across" : ""}`;
      return [...(isFirst ? [[`${i}.align`, `${of(one)}alignment`]] : []), [String(i), name]];
    });
  }

  function headOptions() {
    const one = Array.from({ length: sheetOf().heads }, (_, head) => [String(head), `head ${head}`]);
    const mean = ["mean", "the mean of all"];
    return now.picture === "links" ? [["all", "all, each in a colour"], mean, ...one] : [mean, ...one];
  }

  /** Controls for what there is to choose now; the one that has the focus stays as it is. */
  function fill(but = -1) {
    const options = headOptions();
    if (!isAlignment() && !options.some(([value]) => value === now.head)) now.head = options[0][0];
    const fresh = [
      choice("Layer", layerOptions(), isAlignment() ? `${now.sheet}.align` : String(now.sheet), (value) => {
        const before = sheetOf();
        const [sheet, align] = value.split(".");
        const was = isAlignment();
        now.sheet = Number(sheet);
        if (align) now.head = align;
        else if (was) now.head = "";
        const { queries, keys, items, is_cross: isCross } = sheetOf();
        if (queries !== before.queries || keys !== before.keys || isCross !== before.is_cross) Object.assign(now, { pinned: null, first: { queries: 0, keys: 0 } });
        if (items !== before.items) now.item = 0;
        now.off.clear();
        again(0);
      }),
      isAlignment() ? made("span", {}) : choice("Heads", options, now.head, (value) => { now.head = value; again(1); }),
      choice("Picture", [["links", "curves"], ["grid", "grid"]], now.picture, (value) => { now.picture = value; again(2); }),
    ];
    fresh.forEach((one, i) => {
      if (i === but) return;
      bars[i].replaceWith(one);
      bars[i] = one;
    });
  }

  function again(by) {
    fill(by);
    pointed = null;
    load();
  }

  /** Which tokens of a side are shown: all, or as many as fit. */
  function span(side) {
    const size = sheetOf()[side];
    const count = Math.min(size, MOST[now.picture]);
    const first = Math.min(now.first[sheetOf().is_cross ? side : "queries"], size - count);
    return { first, count, size };
  }

  /* What is shown */

  async function load() {
    const mine = ++turn;
    page.keep(told());
    say("…");
    try {
      const found = await (sheetOf().is_cross ? aligned() : tokens());
      if (turn !== mine) return;
      shown = found;
      wanted = new Set(found.paths.map(plain));
      draw();
    } catch (error) {
      if (turn !== mine || error.name === "AbortError") return;
      shown = null;
      body.replaceChildren(made("p", { className: "complaint", textContent: `This cannot be shown: ${error.message}.` }));
      say(error.message);
    }
  }

  /** The weights between the tokens that are shown, a plane for each head. */
  async function tokens() {
    const { sheet, item, head } = now;
    const { heads } = sheetOf();
    const [down, across] = [span("queries"), span("keys")];
    const part = `${down.first}/${across.first}?queries=${down.count}&keys=${across.count}`;
    const each = head === "all" ? Array.from({ length: heads }, (_, i) => i) : head === "mean" ? [] : [Number(head)];
    const paths = each.length ? each.map((one) => `weights/${sheet}/${item}/${one}/${part}`) : [`mean/${sheet}/${item}/${part}`];
    const planes = await Promise.all(paths.map(async (path) => (await source.numbers(path, signal)).values));
    const text = await Promise.all(["queries", "keys"].map((side) => words(source, sheet, item, side, sheetOf()[side])));
    const cut = (all, { first, count }) => all.slice(first, first + count);
    const of = each.length > 1 ? heading() : `${heading()}, ${head === "mean" ? "the mean of its heads" : `head ${head}`}`;
    return { paths, planes, heads: each, of, down: { ...down, words: cut(text[0], down) }, across: { ...across, words: cut(text[1], across) } };
  }

  /** The words of a translation beside those of its source; tokens, where words are not known. */
  async function aligned() {
    const { sheet, item, head } = now;
    const paths = [`alignment/${sheetOf().recording}/${item}`];
    let found;
    try {
      found = await source.json(paths[0], signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (isAlignment()) now.head = "mean";
      fill();
      return tokens();
    }
    const side = (some) => ({ first: 0, count: some.length, size: some.length, words: some });
    const told = { paths, heads: [], down: side(found.target), across: side(found.source), isAligned: true };
    if (isAlignment()) return { ...told, planes: [Float32Array.from(found.weights.flat())], of: found.of };
    paths.push(`aligned/${sheet}/${item}`);
    const { values, shape: [heads, ...sizes] } = await source.numbers(paths[1], signal);
    const size = sizes[0] * sizes[1];
    const each = Array.from({ length: heads }, (_, one) => values.subarray(one * size, (one + 1) * size));
    if (head === "all") return { ...told, planes: each, heads: [...each.keys()], of: heading() };
    if (head !== "mean") return { ...told, planes: [each[head]], of: `${heading()}, head ${head}` };
    const mean = each[0].map((_, i) => each.reduce((sum, one) => sum + one[i], 0) / heads);
    return { ...told, planes: [mean], of: `${heading()}, the mean of its heads` };
  }

  function draw() {
    if (now.picture === "grid") grid();
    else curves();
  }

  /** Where the tokens that are shown begin, if these are not all. */
  function windows() {
    const sides = sheetOf().is_cross ? ["queries", "keys"] : ["queries"];
    return sides.filter(() => !shown.isAligned).flatMap((side) => {
      const { first, count, size } = span(side);
      if (count === size) return [];
      now.first[side] = first;
      const go = (to) => {
        now.first[side] = Math.max(0, Math.min(size - count, Math.round(to) || 0));
        load();
      };
      const name = sides.length > 1 ? `${side} ` : "";
      const number = made("input", { type: "number", min: 0, max: size - count, value: first });
      number.setAttribute("aria-label", `First of the ${name}tokens that are shown`);
      number.addEventListener("change", () => go(number.valueAsNumber));
      return [made("span", { className: "window" },
        `${name}tokens `,
        button("◀", `Earlier ${name}tokens`, () => go(now.first[side] - count / 2)), number,
        button("▶", `Later ${name}tokens`, () => go(now.first[side] + count / 2)),
        ` to ${(first + count - 1).toLocaleString()} of ${size.toLocaleString()}`)];
    });
  }

  /** Put something new in place of the picture; what had the focus has it again. */
  function put(...parts) {
    const name = body.getRootNode().activeElement?.getAttribute("aria-label");
    const had = body.contains(body.getRootNode().activeElement);
    body.replaceChildren(...parts);
    if (had && name) [...body.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === name)?.focus();
  }

  function heading() {
    return `layer ${sheetOf().stack}${sheetOf().layer}`;
  }

  /* Curves */

  function colour(head) {
    const all = HEADS[theme.isDark ? "dark" : "light"];
    return all[head % all.length];
  }

  function curves() {
    const { down, across, planes, heads } = shown;
    const isMany = heads.length > 1;
    const on = () => planes.map((_, i) => i).filter((i) => !isMany || !now.off.has(heads[i]));
    const weight = (i, query, key) => planes[i][query * across.count + key];
    const canvas = made("canvas", {});
    canvas.setAttribute("aria-hidden", "true");
    const sides = {
      queries: column("queries", down, shown.isAligned ? "what was written" : "what attends"),
      keys: column("keys", across, shown.isAligned ? "the source" : "what is attended to"),
    };
    const picture = made("div", { className: "picture" }, canvas, sides.queries.element, sides.keys.element);
    const slider = made("input", { type: "range", min: 0, max: 100, value: now.least });
    const output = made("span", { className: "limit" });
    slider.addEventListener("input", () => {
      now.least = Number(slider.value);
      page.keep(told());
      lines = linesNow();
      paint();
    });
    const bar = made("div", { className: "bar" }, made("label", {}, "Leave out less than ", slider, " ", output), ...windows(), ...(isMany ? [toggles()] : []),
      ...(isAlignment() ? [made("p", { className: "note", textContent: `${capital(shown.of)}.` })] : []));
    put(bar, picture);
    const least = () => (now.least / 100) ** 2;
    let lines = linesNow();
    const at = {}; // places in the picture, in pixels
    listen();
    shown.place = place;
    canvas.paint = draws;
    csv = table;
    place();

    function toggles() {
      const all = heads.map((head) => {
        const element = button(String(head), `Head ${head}; twice: it alone`, () => turnHead(head, false));
        element.addEventListener("dblclick", () => turnHead(head, true));
        element.className = "toggle";
        return { head, element };
      });
      shown.tint = () => all.forEach(({ head, element }) => {
        const isOn = !now.off.has(head);
        const [paper, ink] = colour(head);
        element.setAttribute("aria-pressed", String(isOn));
        Object.assign(element.style, { borderColor: paper, background: isOn ? paper : "transparent", color: isOn ? ink : "inherit" });
      });
      const group = made("span", { className: "toggles", data: { role: "group", "aria-label": "Heads that are shown" } }, "heads ", ...all.map((one) => one.element),
        button("all", "Show all heads", () => { now.off.clear(); changed(); }));
      return group;
    }

    function turnHead(head, isAlone) {
      if (isAlone) now.off = new Set(heads.filter((one) => one !== head));
      else if (!now.off.delete(head)) now.off.add(head);
      changed();
    }

    function changed() {
      page.keep(told());
      lines = linesNow();
      paint();
    }

    /** All lines that are drawn when no word is pointed at, the strongest last. */
    function linesNow() {
      const limit = least();
      const found = [];
      for (const i of on())
        for (let query = 0, cell = 0; query < down.count; query++)
          for (let key = 0; key < across.count; key++, cell++) {
            const value = planes[i][cell];
            if (value > 0 && value >= limit) found.push({ i, query, key, value });
          }
      found.sort((a, b) => a.value - b.value);
      const cut = found.length > MOST_LINES ? found.slice(-MOST_LINES) : found;
      cut.of = found.length;
      return cut;
    }

    /** Those of one word. */
    function linesOf({ side, at: number }) {
      const limit = least();
      const found = [];
      const isQuery = side === "queries";
      for (const i of on())
        for (let other = 0; other < (isQuery ? across : down).count; other++) {
          const [query, key] = isQuery ? [number - down.first, other] : [other, number - across.first];
          const value = weight(i, query, key);
          if (value > 0 && value >= limit) found.push({ i, query, key, value });
        }
      return found.sort((a, b) => a.value - b.value);
    }

    function isHere(one) {
      const of = one.side === "queries" ? down : across;
      return one.at >= of.first && one.at < of.first + of.count;
    }

    function focus() {
      return [pointed, now.pinned].find((one) => one && isHere(one)) ?? null;
    }

    /** The shares of a word's attention, or of what it gets, each the mean over the heads shown. */
    function shares({ side, at: number }) {
      const some = on();
      const isQuery = side === "queries";
      return Array.from({ length: (isQuery ? across : down).count }, (_, other) => {
        const [query, key] = isQuery ? [number - down.first, other] : [other, number - across.first];
        return some.reduce((sum, i) => sum + weight(i, query, key), 0) / (some.length || 1);
      });
    }

    function place() {
      const narrow = view.clientHeight < 480;
      const count = Math.max(down.count, across.count);
      const room = view.clientHeight - bar.offsetHeight - 60;
      at.row = Math.max(narrow ? ROW.least - 1 : ROW.least, Math.min(ROW.most, room / count));
      const font = Math.min(17, Math.max(12, at.row * 0.62));
      const pen = canvas.getContext("2d");
      pen.font = `${font}px system-ui, sans-serif`;
      const widest = (some) => some.reduce((most, word) => Math.max(most, pen.measureText(word).width), 0);
      const boxes = isMany ? heads.length * BOX + 8 : 0;
      const free = Math.max(320, view.clientWidth - 24) - 2 * (SHARE + boxes);
      const most = Math.max(60, (free - GAP.least) / 2);
      at.left = SHARE + boxes + Math.min(most, widest(sides.queries.texts) + 20);
      const right = SHARE + boxes + Math.min(most, widest(sides.keys.texts) + 20);
      at.gap = Math.min(GAP.most, Math.max(GAP.least, view.clientWidth - 24 - at.left - right));
      at.right = at.left + at.gap;
      at.width = at.right + right;
      at.top = 26;
      at.height = at.top + count * at.row + 8;
      at.boxes = boxes;
      at.fan = Math.min(3, (at.row - 8) / planes.length); // lines of several heads lie side by side
      Object.assign(picture.style, { width: `${at.width}px`, height: `${at.height}px`, fontSize: `${font}px` });
      const tall = Math.max(...Object.values(sides).map((one) => one.words.length)) * at.row;
      for (const [name, side] of Object.entries(sides)) {
        const shift = (tall - side.words.length * at.row) / 2; // the shorter column stands in the middle
        Object.assign(side.element.style, {
          left: name === "queries" ? `${boxes}px` : `${at.right}px`, top: 0, width: `${(name === "queries" ? at.left : right) - boxes}px`, paddingTop: `${at.top + shift}px`,
        });
        at[name] = at.top + shift + at.row / 2;
        side.words.forEach((one) => { one.parentNode.style.height = `${at.row}px`; });
      }
      const ratio = Math.min(devicePixelRatio || 1, 16_000 / at.height);
      Object.assign(canvas, { width: Math.round(at.width * ratio), height: Math.round(at.height * ratio) });
      Object.assign(canvas.style, { width: `${at.width}px`, height: `${at.height}px` });
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      paint();
    }

    function paint() {
      draws(canvas.getContext("2d"));
      shown.tint?.();
      const limit = least();
      output.textContent = percent(limit);
      slider.setAttribute("aria-valuetext", percent(limit));
      tell();
    }

    function draws(pen) {
      pen.clearRect(0, 0, at.width, at.height);
      const one = focus();
      const accent = theme.colour("--accent");
      for (const { i, query, key, value } of one ? linesOf(one) : lines) {
        const aside = (i - (planes.length - 1) / 2) * at.fan;
        const [fromY, toY] = [at.queries + query * at.row + aside, at.keys + key * at.row + aside];
        pen.strokeStyle = isMany ? colour(heads[i])[0] : accent;
        pen.globalAlpha = 0.05 + 0.95 * Math.min(1, value);
        pen.lineWidth = 0.9 + (isMany && !one ? 2.1 : 3.6) * value;
        pen.beginPath();
        pen.moveTo(at.left, fromY);
        pen.bezierCurveTo(at.left + at.gap * 0.45, fromY, at.right - at.gap * 0.45, toY, at.right, toY);
        pen.stroke();
      }
      pen.globalAlpha = 1;
      if (one && isMany) boxesOf(pen, one);
    }

    /** Beside each word, what each head gives it: the fuller a box, the more. */
    function boxesOf(pen, { side, at: number }) {
      const isQuery = side === "queries";
      const x = isQuery ? at.width - at.boxes + 8 : 0;
      const high = Math.min(at.row - 4, 16);
      for (let other = 0; other < (isQuery ? across : down).count; other++) {
        const y = (isQuery ? at.keys : at.queries) + other * at.row;
        for (const i of on()) {
          const [query, key] = isQuery ? [number - down.first, other] : [other, number - across.first];
          const value = weight(i, query, key);
          if (!(value > 0)) continue;
          pen.fillStyle = pen.strokeStyle = colour(heads[i])[0];
          pen.lineWidth = 1;
          pen.globalAlpha = value;
          pen.fillRect(x + i * BOX, y - high / 2, BOX - 2, high);
          pen.globalAlpha = 0.5;
          pen.strokeRect(x + i * BOX + 0.5, y - high / 2 + 0.5, BOX - 3, high - 1);
        }
      }
      pen.globalAlpha = 1;
    }

    function column(name, of, title) {
      const texts = of.words.map((word) => short(word, 24));
      const all = texts.map((text, i) => {
        const word = made("button", { type: "button", className: "word", textContent: text, tabIndex: i ? -1 : 0 });
        word.dataset.at = of.first + i;
        word.setAttribute("aria-label", `“${text}”, token ${of.first + i}, ${title}`);
        return word;
      });
      const rows = all.map((word) => made("li", {}, made("span", { className: "share" }), word));
      const element = made("ol", { className: name, data: { "aria-label": title, "data-title": title } }, ...rows);
      return { element, words: all, texts, shares: rows.map((one) => one.firstChild), name };
    }

    function tell() {
      const one = focus();
      const found = one ? shares(one) : null;
      for (const side of Object.values(sides)) {
        const isOther = one && one.side !== side.name;
        side.element.classList.toggle("told", Boolean(isOther));
        side.shares.forEach((share, i) => { share.textContent = isOther ? few(found[i]) : ""; });
        side.words.forEach((word, i) => {
          const here = { side: side.name, at: Number(word.dataset.at) };
          const isSame = (other) => other?.side === here.side && other.at === here.at;
          word.setAttribute("aria-pressed", String(isSame(now.pinned)));
          word.classList.toggle("lit", Boolean(isSame(one)));
          word.classList.toggle("dim", Boolean(isOther) && found[i] < least());
        });
      }
      const about = isMany ? `${capital(shown.of)}, ${on().length} of ${heads.length} heads` : capital(shown.of);
      if (!one) {
        const of = lines.of > lines.length ? `the strongest ${lines.length.toLocaleString()} of ${lines.of.toLocaleString()}` : lines.length.toLocaleString();
        say(`${about} · ${of} weights of ${percent(least())} or more · point at a word, or move to it with Tab and arrows; a click keeps it`);
        return;
      }
      const isQuery = one.side === "queries";
      const [mine, others] = isQuery ? [sides.queries, sides.keys] : [sides.keys, sides.queries];
      const [ours, theirs] = isQuery ? [down, across] : [across, down];
      const name = `“${mine.texts[one.at - ours.first]}” (${one.at})`;
      const best = [...found.keys()].sort((a, b) => found[b] - found[a]).slice(0, 3).filter((i) => found[i] > 0).map((i) => `“${others.texts[i]}” (${theirs.first + i}) ${percent(found[i])}`);
      const rest = 1 - found.reduce((sum, value) => sum + value, 0);
      const outside = isQuery && rest > 0.0005 ? ` · ${percent(rest)} to what is not shown` : "";
      const does = shown.isAligned ? ["looked at", "was looked at for"] : ["attends to", "is attended to by"];
      say(`${name} ${does[isQuery ? 0 : 1]} ${best.join(", ") || "nothing here"}${outside} · ${about}${isMany ? ", their mean" : ""}`);
    }

    function listen() {
      const wordOf = (event) => event.target.closest?.("li")?.querySelector(".word");
      const hereOf = (word) => (word ? { side: word.closest("ol").className.split(" ")[0], at: Number(word.dataset.at) } : null);
      const point = (to) => {
        if (to?.side === pointed?.side && to?.at === pointed?.at) return;
        pointed = to;
        paint();
      };
      picture.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") point(hereOf(wordOf(event))); });
      picture.addEventListener("pointerleave", () => point(null));
      picture.addEventListener("focusin", (event) => { if (event.target.matches(":focus-visible")) point(hereOf(wordOf(event))); });
      picture.addEventListener("focusout", () => point(null));
      picture.addEventListener("click", (event) => {
        const to = hereOf(event.target.closest(".word"));
        if (!to) return;
        const isSame = now.pinned?.side === to.side && now.pinned.at === to.at;
        now.pinned = isSame ? null : to;
        if (isSame) pointed = null;
        page.keep(told());
        paint();
      });
      picture.addEventListener("keydown", (event) => {
        const word = event.target.closest(".word");
        if (!word) return;
        const side = word.closest("ol").className.split(" ")[0];
        const i = sides[side].words.indexOf(word);
        const move = { ArrowUp: [side, i - 1], ArrowDown: [side, i + 1], Home: [side, 0], End: [side, Infinity], ArrowLeft: ["queries", i], ArrowRight: ["keys", i] }[event.key];
        if (event.key === "Escape") {
          now.pinned = pointed = null;
          page.keep(told());
          paint();
        } else if (move) {
          const all = sides[move[0]].words;
          const next = all[Math.max(0, Math.min(all.length - 1, move[1]))];
          all.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
          next.focus();
        } else return;
        event.preventDefault();
      });
    }

    function table() {
      const one = focus();
      const name = (i) => (heads.length ? heads[i] : now.head);
      return [["query position", "query", "key position", "key", "head", "weight"],
        ...[...(one ? linesOf(one) : lines)].reverse().map(({ i, query, key, value }) => [down.first + query, down.words[query], across.first + key, across.words[key], name(i), value])];
    }
  }

  /* The grid */

  function grid() {
    const { down, across, planes: [plane], of, isAligned } = shown;
    const top = plane.reduce((most, value) => Math.max(most, value), 0) || 1;
    const texts = [down, across].map((side) => side.words.map((word) => short(word, 24)));
    const cells = [];
    const head = made("tr", {}, made("td", { className: "corner" }), ...texts[1].map((text) => made("th", { scope: "col", textContent: text })));
    const rows = texts[0].map((text, i) => {
      const row = plane.subarray(i * across.count, (i + 1) * across.count);
      const best = row.indexOf(row.reduce((most, value) => Math.max(most, value), 0));
      cells.push([...row].map((value, j) => {
        const { paper, ink } = shade(value / top, theme.table);
        const cell = made("td", { className: j === best && value > 0 ? "best" : "", tabIndex: i || j ? -1 : 0, textContent: value >= 0.005 ? Math.round(100 * value) : "" });
        Object.assign(cell.style, { background: paper, color: ink });
        Object.assign(cell.dataset, { row: i, column: j });
        return cell;
      }));
      return made("tr", {}, made("th", { scope: "row", textContent: text }), ...cells[i]);
    });
    const board = made("table", {}, made("thead", {}, head), made("tbody", {}, ...rows));
    board.setAttribute("aria-label", isAligned ? "Target words down, source words across: percent of attention" : "What attends down, what is attended to across: percent of attention");
    const way = isAligned
      ? `How many percent of the attention each word of the source had as a word was written; the strongest is framed. ${capital(of)}.`
      : `How many percent of its attention a token gives to each; the strongest is framed. ${capital(of)}.`;
    board.style.fontSize = Math.max(down.count, across.count) > 16 ? "" : "17px";
    const note = made("p", { className: "note", textContent: way });
    put(made("div", { className: "bar" }, note, ...windows()), made("div", { className: "board" }, board));
    shown.place = null;
    csv = () => [["", ...across.words], ...down.words.map((word, i) => [word, ...plane.subarray(i * across.count, (i + 1) * across.count)])];
    say(isAligned ? "Point at a cell, or move from cell to cell with arrows" : `${down.count} × ${across.count} weights · point at a cell, or move with arrows`);

    const tell = (cell) => {
      const [i, j] = [Number(cell.dataset.row), Number(cell.dataset.column)];
      for (const one of board.querySelectorAll(".lit")) one.classList.remove("lit");
      for (const one of [cell, rows[i].firstChild, head.children[j + 1]]) one.classList.add("lit");
      const name = (side, at) => `“${texts[side][at]}”${isAligned ? "" : ` (${[down, across][side].first + at})`}`;
      say(`${name(0, i)} ${isAligned ? "looked at" : "attends to"} ${name(1, j)}: ${percent(plane[i * across.count + j])}`);
    };
    const cellOf = (event) => event.target.closest?.("td[data-row]");
    board.addEventListener("pointerover", (event) => { const cell = cellOf(event); if (cell) tell(cell); });
    board.addEventListener("focusin", (event) => { const cell = cellOf(event); if (cell) tell(cell); });
    board.addEventListener("keydown", (event) => {
      const cell = cellOf(event);
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!cell || !step) return;
      const next = cells[Number(cell.dataset.row) + step[0]]?.[Number(cell.dataset.column) + step[1]];
      event.preventDefault();
      if (!next) return;
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
}

/** A share beside a word, where there is no room for many digits. */
function few(value) {
  return value > 0 && value < 0.0001 ? "< 0.01 %" : percent(value);
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
