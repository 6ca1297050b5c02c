// Words and the weights between them, as curves or as a grid: of which layer, heads and tokens, and where these come from.
import { whole } from "./address.js";
import { board } from "./board.js";
import { between } from "./camera.js";
import { Curves } from "./curves.js";
import { button, choice, itemChoice, made, short } from "./parts.js";
import { plain, words } from "./source.js";

const MOST = { links: 200, grid: 64 }; // tokens of one side that are shown at once
const AROUND = 50; // of those before a token of the address

export async function links(page) {
  const { about, asked, view, controls, say, signal, theme } = page;
  const { sheets } = about;
  const now = chosen(asked, sheets);
  let paths = []; // of the answers that are shown
  let shown = null; // the picture of them
  let turn = 0; // of loading; what comes late is not drawn
  const body = made("div", { className: "links" });
  const bars = [made("span", {}), made("span", {}), made("span", {})];
  view.append(body);
  controls.append(...bars, itemChoice(sheets, now.sheet, now.item, (item) => page.go("links", { ...told(), item })));
  page.offer({ csv: () => shown?.rows() ?? [], needs: () => new Set(paths.map(plain)) });
  theme.onChange(() => shown?.paint());
  const resized = new ResizeObserver(() => shown?.place?.());
  resized.observe(view);
  signal.addEventListener("abort", () => resized.disconnect());
  fill();
  await load();
  const kept = body.querySelector("[aria-pressed=true].word")?.getBoundingClientRect();
  if (kept) view.scrollTop += (kept.top + kept.bottom) / 2 - view.getBoundingClientRect().top - view.clientHeight / 2;

  function sheetOf() {
    return sheets[now.sheet];
  }

  /** What the address says of what is chosen: see `chosen`. */
  function told() {
    const { sheet, item, picture, head, least, first, off, pinned } = now;
    return {
      sheet, item, head, picture,
      ...(least === null ? {} : { least }),
      ...(off.size ? { off: [...off].sort((a, b) => a - b).join(".") } : {}),
      ...(first.queries ? { first: first.queries } : {}),
      ...(first.keys && sheetOf().is_cross ? { firstkey: first.keys } : {}),
      ...(pinned ? { [pinned.side === "queries" ? "token" : "key"]: pinned.at } : {}),
    };
  }

  function keep() {
    page.keep(told());
  }

  /* What is chosen */

  function layerOptions() {
    const of = ({ recording }) => (about.recordings.length > 1 ? `${short(about.recordings[recording].title, 28)}: ` : "");
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
    const isAlignment = now.head === "align";
    const options = headOptions();
    if (!isAlignment && !options.some(([value]) => value === now.head)) now.head = options[0][0];
    const again = (by) => { fill(by); load(); };
    const fresh = [
      choice("Layer", layerOptions(), isAlignment ? `${now.sheet}.align` : String(now.sheet), (value) => { turnTo(...value.split(".")); again(0); }),
      isAlignment ? made("span", {}) : choice("Heads", options, now.head, (value) => { now.head = value; again(1); }),
      choice("Picture", [["links", "curves"], ["grid", "grid"]], now.picture, (value) => { now.picture = value; again(2); }),
    ];
    fresh.forEach((one, i) => {
      if (i === but) return;
      bars[i].replaceWith(one);
      bars[i] = one;
    });
  }

  /** Another layer, or the alignment; tokens stay as they are where the new ones are the same. */
  function turnTo(sheet, align) {
    const before = sheetOf();
    now.sheet = Number(sheet);
    if (align || now.head === "align") now.head = align ?? "";
    const isOther = (name) => before[name] !== sheetOf()[name];
    if (["queries", "keys", "is_cross"].some(isOther)) Object.assign(now, { pinned: null, first: { queries: 0, keys: 0 } });
    if (isOther("items")) now.item = 0;
    now.off.clear();
  }

  /** Which tokens of a side are shown: all, or as many as fit. */
  function span(side) {
    const size = sheetOf()[side];
    const count = Math.min(size, MOST[now.picture]);
    const first = now.first[sheetOf().is_cross ? side : "queries"];
    return { first: between(0, Math.round(first) || 0, size - count), count, size };
  }

  /** Where the tokens that are shown begin, if these are not all. */
  function windows() {
    const sides = sheetOf().is_cross ? ["queries", "keys"] : ["queries"];
    return sides.flatMap((side) => {
      const { first, count, size } = span(side);
      if (count === size) return [];
      const go = (to) => { now.first[side] = to; load(); };
      const name = sides.length > 1 ? `${side} ` : "";
      const number = made("input", { type: "number", min: 0, max: size - count, value: first, data: { "aria-label": `First of the ${name}tokens that are shown` } });
      number.addEventListener("change", () => go(number.valueAsNumber));
      return [made("span", { className: "window" },
        `${name}tokens `,
        button("◀", `Earlier ${name}tokens`, () => go(first - count / 2)), number,
        button("▶", `Later ${name}tokens`, () => go(first + count / 2)),
        ` to ${(first + count - 1).toLocaleString()} of ${size.toLocaleString()}`)];
    });
  }

  /* What is shown */

  async function load() {
    const mine = ++turn;
    const isLate = () => turn !== mine || signal.aborted;
    const spans = { queries: span("queries"), keys: span("keys") };
    now.first = { queries: spans.queries.first, keys: spans.keys.first };
    keep();
    say("…");
    try {
      let found = sheetOf().is_cross ? await aligned(page, { ...now }) : null;
      if (isLate()) return;
      if (!found && now.head === "align") {
        now.head = "mean";
        fill();
      }
      found ??= await tokens(page, { ...now }, spans);
      if (isLate()) return;
      paths = found.paths;
      draw(found);
    } catch (error) {
      if (isLate() || error.name === "AbortError") return;
      shown = null;
      body.replaceChildren(made("p", { className: "complaint", textContent: `This cannot be shown: ${error.message}.` }));
      say(error.message);
    }
  }

  /** Put another picture in place; what had the focus has it again. */
  function draw(found) {
    const more = found.isAligned ? [] : windows();
    shown = now.picture === "grid"
      ? board(page, found, more)
      : new Curves(page, found, now, { windows: more, note: now.head === "align" ? `${found.of}.` : "", changed: keep });
    const { activeElement } = body.getRootNode();
    const name = body.contains(activeElement) && activeElement.getAttribute("aria-label");
    body.replaceChildren(shown.bar, shown.picture);
    shown.place?.();
    if (name) [...body.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === name)?.focus();
  }
}

/** What an address says is to be shown. */
function chosen(asked, sheets) {
  const sheet = whole(asked, "sheet", sheets.length - 1, Math.max(0, sheets.findIndex((one) => one.is_cross)));
  const { items, queries, keys, is_cross: isCross } = sheets[sheet];
  const said = { head: asked.get("head") ?? (isCross ? "align" : ""), picture: asked.get("picture") };
  const pinned = asked.has("token") ? { side: "queries", at: whole(asked, "token", queries - 1) }
    : asked.has("key") ? { side: "keys", at: whole(asked, "key", keys - 1) } : null;
  const before = (side) => (pinned && (pinned.side === side || !isCross) ? Math.max(0, pinned.at - AROUND) : 0);
  return {
    sheet,
    item: whole(asked, "item", items - 1),
    picture: Object.hasOwn(MOST, said.picture) ? said.picture : isCross ? "grid" : "links",
    head: said.head === "align" && !isCross ? "" : said.head, // a number, "align", "all" or "mean"
    least: whole(asked, "least", 100, null), // a place of the slider; null for what is usual
    off: new Set((asked.get("off") ?? "").split(".").filter((one) => /^\d{1,9}$/.test(one)).map(Number)), // heads
    pinned, // the word that is kept
    first: { queries: whole(asked, "first", queries - 1, before("queries")), keys: whole(asked, "firstkey", keys - 1, before("keys")) },
  };
}

/**
 * The weights between tokens, a plane for each head.
 * @typedef {{first: number, count: number, size: number, words: string[]}} Side the part of its tokens that is shown
 * @returns {Promise<{queries: Side, keys: Side, planes: Float32Array[], heads: number[], of: string,
 *   isAligned?: boolean, paths: string[]}>} heads: of which there is a plane each; of: what they are called; paths: of the answers
 */
async function tokens({ source, signal, about }, { sheet, item, head }, { queries, keys }) {
  const one = about.sheets[sheet];
  const part = `${queries.first}/${keys.first}?queries=${queries.count}&keys=${keys.count}`;
  const heads = head === "all" ? Array.from({ length: one.heads }, (_, i) => i) : head === "mean" ? [] : [Number(head)];
  const paths = heads.length ? heads.map((each) => `weights/${sheet}/${item}/${each}/${part}`) : [`mean/${sheet}/${item}/${part}`];
  const planes = await Promise.all(paths.map(async (path) => (await source.numbers(path, signal)).values));
  const side = async (name, span) => ({ ...span, words: (await words(source, sheet, item, name, one[name])).slice(span.first, span.first + span.count) });
  const [down, across] = await Promise.all([side("queries", queries), side("keys", keys)]);
  return { paths, planes, heads, of: nameOf(one, head), queries: down, keys: across };
}

/** The same between the words of a translation and those of its source; null where words are not known. */
async function aligned({ source, signal, about }, { sheet, item, head }) {
  const paths = [`alignment/${about.sheets[sheet].recording}/${item}`];
  let found;
  try {
    found = await source.json(paths[0], signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
  const side = (some) => ({ first: 0, count: some.length, size: some.length, words: some });
  const sides = { queries: side(found.target), keys: side(found.source), heads: [], isAligned: true, paths };
  if (head === "align") return { ...sides, planes: [Float32Array.from(found.weights.flat())], of: found.of[0].toUpperCase() + found.of.slice(1) };
  paths.push(`aligned/${sheet}/${item}`);
  const { values, shape: [count, ...sizes] } = await source.numbers(paths[1], signal);
  const size = sizes[0] * sizes[1];
  const each = Array.from({ length: count }, (_, one) => values.subarray(one * size, (one + 1) * size));
  const mean = () => each[0].map((_, i) => each.reduce((sum, one) => sum + one[i], 0) / count);
  const planes = head === "all" ? each : [head === "mean" ? mean() : each[head]];
  return { ...sides, planes, heads: head === "all" ? [...each.keys()] : [], of: nameOf(about.sheets[sheet], head) };
}

function nameOf({ stack, layer }, head) {
  const heads = { all: "", mean: ", the mean of its heads" };
  return `Layer ${stack}${layer}${heads[head] ?? `, head ${head}`}`;
}
