// A generation, token by token: each new one, what it was made of, and what else it could have been.
import { whole } from "./address.js";
import { percent, shade } from "./colours.js";
import { choice, itemChoice, made, short } from "./parts.js";
import { words } from "./source.js";

const PACE = 700; // milliseconds a token, while it plays
const BLOCK = 2 ** 18; // weights of one answer, and at most so many tokens of it:
const ROWS = 256;
const SHOWN = 2000; // tokens around the new one that are in the page, twice as many before it
const BEST = 5; // tokens that are named as looked at most

export async function generation(page) {
  const { about, source, asked, view, controls, say, signal, theme } = page;
  const { sheets, recordings } = about;
  const writing = recordings.map((_, i) => i).filter((i) => sheets.some((one) => one.is_causal && one.recording === i));
  if (!writing.length) {
    nothing();
    return;
  }
  const from = asked.has("sheet") ? sheets[whole(asked, "sheet", sheets.length - 1)].recording : whole(asked, "recording", recordings.length - 1);
  const recording = writing.includes(from) ? from : writing[0];
  const mine = sheets.map((one, i) => ({ ...one, i })).filter((one) => one.recording === recording);
  const layers = mine.filter((one) => one.is_causal);
  const crosses = mine.filter((one) => one.is_cross);
  const across = (layer) => crosses.find((one) => one.layer === layer.layer) ?? crosses[layers.indexOf(layer)] ?? crosses[0];
  const { queries: rows, items } = layers[0];
  const item = whole(asked, "item", items - 1);
  const now = {
    layer: asked.has("sheet") ? layers.find((one) => one.i === whole(asked, "sheet", sheets.length - 1)) ?? null : null,
    head: "mean",
  };
  if (now.layer && asked.has("head") && asked.get("head") !== "mean") now.head = whole(asked, "head", now.layer.heads - 1);
  const told = await source.json(`written/${recording}`, signal);
  const isKnown = told.prompt !== null && item === 0;
  const tokens = isKnown ? told.words : await words(source, layers[0].i, item, "keys", rows);
  const prompt = isKnown ? told.prompt : 1;
  const last = tokens.length - prompt - 1; // the number of the last step, from 0
  if (last < 0) {
    view.append(made("p", { className: "nothing", textContent: "There is one token alone, and nothing comes after it." }));
    return;
  }
  const sourceWords = crosses.length ? await words(source, crosses[0].i, item, "keys", crosses[0].keys) : [];
  now.step = whole(asked, "step", last, asked.has("token") ? Math.max(0, Math.min(last, whole(asked, "token", rows) + 1 - prompt)) : last);
  let timer = null;
  let turn = 0;
  let weights = null; // of the new token: { own, across }
  const answers = new Map();
  const first = { own: -1, end: -1 }; // tokens that are in the page now

  /* The page */

  const back = control("‹ Back", "Back to the token before", () => { stop(); go(now.step - 1); });
  const play = control("Play", "Play", () => (timer === null ? start() : stop()));
  play.className = "play";
  const next = control("Next ›", "On to the next token", () => { stop(); go(now.step + 1); });
  const slider = made("input", { type: "range", min: 0, max: last, value: now.step });
  slider.setAttribute("aria-label", "Step");
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  const count = made("span", { className: "count" });
  const player = made("div", { className: "player", data: { role: "group", "aria-label": "Steps" } }, back, play, next, slider, count);
  const sourceBlock = block("Source", "source");
  const promptBlock = block(isKnown ? (crosses.length ? "Start" : "Prompt") : "First", "prompt");
  const outputBlock = block(isKnown ? "Output" : "Text", "output");
  const note = made("p", { className: "note", textContent: isKnown ? told.how : "What was given here, and what was written, is not known. So it is stepped through as if the first token had been given and all others written. With --new-tokens 40, pellucid view lets the model write." });
  const written = made("div", { className: "written", tabIndex: 0, data: { role: "region", "aria-label": "The text" } }, ...(crosses.length ? [sourceBlock.element] : []), promptBlock.element, outputBlock.element, note);
  const beside = made("div", { className: "step", tabIndex: 0, data: { role: "region", "aria-label": "This step" } });
  view.append(made("div", { className: "generation" }, player, written, beside));
  sourceBlock.fill(sourceWords, 0, "across");
  choices();
  listen();
  theme.onChange(paint);
  page.offer({ csv });
  await go(now.step);

  function control(text, title, call) {
    const element = made("button", { type: "button", textContent: text, title });
    element.addEventListener("click", call);
    return element;
  }

  /** Some tokens under a name. */
  function block(name, kind) {
    const scale = made("small", { title: "The weight from which on the shade is full" });
    const text = made("p", {});
    const element = made("section", { className: `block ${kind}` }, made("h2", {}, name, scale), text);
    const fill = (some, start, of) => text.replaceChildren(...some.flatMap((word, i) => {
      const [, space, rest] = /^( *)([^]*)$/.exec(word); // shades are of words, and not of what is between
      const token = made("span", { textContent: rest.replace(/^\n+|\n+$/g, (ends) => "⏎".repeat(ends.length)) || "␣" });
      Object.assign(token.dataset, { at: start + i, of });
      return [space, token, word.includes("\n") ? "\n" : ""];
    }));
    return { element, text, scale, fill };
  }

  function choices() {
    const heads = now.layer?.heads ?? 0;
    const some = [];
    if (writing.length > 1) some.push(choice("Recording", writing.map((i) => [String(i), short(recordings[i].title, 28)]), String(recording), (value) => page.go("generation", { recording: value })));
    some.push(choice("Attention of", [["", "all layers"], ...layers.map((one) => [String(one.i), `layer ${one.stack}${one.layer}${crosses.length ? ` and ${across(one).stack}${across(one).layer}` : ""}`])], now.layer ? String(now.layer.i) : "", (value) => {
      now.layer = layers.find((one) => String(one.i) === value) ?? null;
      now.head = "mean";
      choices();
      [...controls.querySelectorAll("select")].find((one) => one.parentNode.textContent.startsWith("Attention"))?.focus();
      go(now.step);
    }));
    if (heads) {
      some.push(choice("Head", [["mean", "the mean of all"], ...Array.from({ length: heads }, (_, i) => [String(i), `head ${i}`])], String(now.head), (value) => {
        now.head = value === "mean" ? value : Number(value);
        go(now.step);
      }));
    }
    some.push(itemChoice(sheets, layers[0].i, item, (other) => page.go("generation", { ...address(), item: other })));
    controls.replaceChildren(...some.filter(Boolean));
  }

  function address() {
    return { ...(now.layer ? { sheet: now.layer.i, head: now.head } : { recording }), item, step: now.step };
  }

  /* Steps */

  function start() {
    play.textContent = play.title = "Pause";
    timer = setInterval(() => (now.step < last ? go(now.step + 1) : stop()), PACE);
    go(now.step < last ? now.step + 1 : 0);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = play.title = "Play";
  }

  /** Show a step; what is found of another one in the meantime is not shown. */
  async function go(step) {
    now.step = Math.max(0, Math.min(last, step));
    page.keep(address());
    slider.value = now.step;
    slider.setAttribute("aria-valuetext", `${now.step + 1} of ${last + 1}: ${tokens[prompt + now.step]}`);
    count.textContent = `${(now.step + 1).toLocaleString()} of ${(last + 1).toLocaleString()}`;
    back.disabled = now.step === 0;
    next.disabled = now.step === last;
    fill();
    const here = ++turn;
    try {
      const found = { own: await attention((one) => one, layers), across: crosses.length ? await attention(across, layers) : null };
      if (here !== turn) return;
      weights = found;
      paint();
    } catch (error) {
      if (here !== turn || error.name === "AbortError") return;
      weights = null;
      stop();
      paint();
      say(error.message);
    }
  }

  /** What the token that wrote the new one looked at: of one head, or the mean of many. */
  async function attention(sheetOf, all) {
    const row = prompt + now.step - 1;
    const some = now.layer ? [now.layer] : all;
    const found = await Promise.all(some.map(async (layer) => {
      const { i, keys } = sheetOf(layer);
      const high = Math.max(1, Math.min(ROWS, Math.floor(BLOCK / keys)));
      const start = prompt - 1 + Math.floor((row - prompt + 1) / high) * high;
      const name = now.head === "mean" ? `mean/${i}/${item}` : `weights/${i}/${item}/${now.head}`;
      const path = `${name}/${start}/0?queries=${high}&keys=${keys}`;
      if (!answers.has(path)) {
        if (answers.size > 256) answers.clear();
        const answer = source.numbers(path, signal);
        answer.catch(() => answers.delete(path));
        answers.set(path, answer);
      }
      const { values } = await answers.get(path);
      return values.subarray((row - start) * keys, (row - start + 1) * keys);
    }));
    if (found.length === 1) return found[0];
    return found[0].map((_, key) => found.reduce((sum, one) => sum + one[key], 0) / found.length);
  }

  /** Put the tokens around the new one into the page. */
  function fill() {
    const at = prompt + now.step;
    const start = at < 2 * SHOWN ? 0 : Math.floor(at / SHOWN - 1) * SHOWN;
    const end = Math.min(tokens.length, start + 3 * SHOWN);
    if (start !== first.own || end !== first.end) {
      Object.assign(first, { own: start, end });
      const middle = Math.max(start, prompt);
      promptBlock.fill(tokens.slice(start, Math.max(start, prompt)), start, "own");
      promptBlock.element.hidden = start >= prompt;
      outputBlock.fill(tokens.slice(middle, end), middle, "own");
    }
    for (const token of outputBlock.text.children) {
      token.classList.toggle("new", Number(token.dataset.at) === at);
      token.classList.toggle("later", Number(token.dataset.at) > at);
    }
    outputBlock.text.querySelector(".new")?.scrollIntoView({ block: "nearest" });
  }

  function paint() {
    const row = prompt + now.step - 1;
    const shadeAll = (blocks, values, leaveOut) => {
      // The first token takes what no other has use for; the colours are for the others.
      const rest = values ? values.subarray(leaveOut ? 1 : 0).reduce((most, value) => Math.max(most, value), 0) : 0;
      const top = rest || values?.[0] || 1;
      for (const { text, scale } of blocks) {
        scale.textContent = values && text.childElementCount ? `strongest: ${leaveOut && values[0] > top ? "≥ " : ""}${percent(top)}` : "";
        for (const token of text.children) {
          const at = Number(token.dataset.at);
          const value = values && at <= (leaveOut ? row : Infinity) ? values[at] : 0;
          const { paper, ink } = shade(value / top, theme.table);
          const isPlain = token.classList.contains("new") || !(value > 0);
          token.style.background = isPlain ? "" : paper;
          token.style.color = isPlain ? "" : ink;
          token.title = values ? percent(value) : "";
        }
      }
    };
    shadeAll([promptBlock, outputBlock], weights?.own ?? null, true);
    promptBlock.scale.textContent ||= outputBlock.scale.textContent;
    outputBlock.scale.textContent = promptBlock.element.hidden ? outputBlock.scale.textContent : "";
    if (crosses.length) shadeAll([sourceBlock], weights?.across ?? null, false);
    tell();
  }

  /* What is told of a step */

  function seen(word) {
    return short(word, 26);
  }

  function bars(rowsOf, most) {
    return made("table", {}, made("tbody", {}, ...rowsOf.map(({ word, value, isChosen }) => {
      const bar = made("span", { className: "bar" });
      bar.style.width = `${(100 * value) / most}%`;
      return made("tr", { className: isChosen ? "chosen" : "" }, made("th", { scope: "row", textContent: word }), made("td", {}, bar), made("td", { textContent: percent(value) }));
    })));
  }

  function best(values, texts) {
    return [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, BEST).filter((at) => values[at] > 0)
      .map((at) => ({ word: `${seen(texts[at])} (${at})`, quoted: `“${seen(texts[at])}” (${at})`, value: values[at] }));
  }

  function tell() {
    const at = prompt + now.step;
    const new_ = seen(tokens[at]);
    const others = isKnown ? told.steps[now.step] : [];
    const parts = [made("h2", { textContent: `Token ${at}` }), made("p", { className: "token", textContent: new_ })];
    const chosen = others.find((one) => one.is_written);
    if (others.length) {
      parts.push(made("h2", { textContent: "What it could have been" }), bars(others.map((one) => ({ word: `${one.is_written ? "● " : ""}${seen(one.word)}`, value: one.probability, isChosen: one.is_written })), 1));
    }
    const looked = [];
    for (const [values, texts, name] of [[weights?.across, sourceWords, "Looked at most in the source"], [weights?.own, tokens, crosses.length ? "Looked at most in the output" : "Looked at most"]]) {
      if (!values) continue;
      const strongest = best(values, texts);
      looked.push(...strongest.slice(0, 2));
      parts.push(made("h2", { textContent: name }), bars(strongest, 1));
    }
    beside.replaceChildren(...parts);
    if (!weights) return;
    const likely = chosen ? ` was ${percent(chosen.probability)} likely;` : "";
    const of = now.layer ? `layer ${now.layer.stack}${now.layer.layer}, ${now.head === "mean" ? "mean of heads" : `head ${now.head}`}` : "mean of all layers";
    say(`“${new_}” (${at})${likely} looked at ${looked.map((one) => `${one.quoted} ${percent(one.value)}`).join(", ")} · ${of}`);
  }

  function csv() {
    if (!weights) throw new Error("there are no numbers yet");
    const at = prompt + now.step;
    const kind = (i) => (i < prompt ? "prompt" : "output");
    return [
      ["what", "position", "token", "weight", "probability"],
      ["new token", at, tokens[at], "", told.steps[now.step]?.find((one) => one.is_written)?.probability ?? ""],
      ...sourceWords.map((word, i) => ["source", i, word, weights.across[i], ""]),
      ...tokens.slice(0, at).map((word, i) => [kind(i), i, word, weights.own[i], ""]),
      ...(isKnown ? told.steps[now.step] : []).map((one) => ["alternative", "", one.word, "", one.probability]),
    ];
  }

  function listen() {
    signal.addEventListener("abort", stop);
    written.addEventListener("click", (event) => {
      const token = event.target.closest("span[data-of=own]");
      if (!token || Number(token.dataset.at) < prompt) return;
      stop();
      go(Number(token.dataset.at) - prompt);
    });
    written.addEventListener("pointerover", (event) => {
      const token = event.target.closest("span[data-of]");
      if (token && token.title) say(`“${short(token.textContent, 26)}” (${token.dataset.at}): ${token.title} of what “${seen(tokens[prompt + now.step])}” looked at`);
    });
    // Of the page alone; in a notebook, while the focus is in here.
    const root = view.getRootNode();
    root.addEventListener("keydown", (event) => {
      const on = event.composedPath()[0];
      if (event.ctrlKey || event.metaKey || event.altKey || on.closest?.("select, input:not([type=range])")) return;
      const step = { ArrowLeft: now.step - 1, ArrowRight: now.step + 1, Home: 0, End: last }[event.key];
      if (event.key === " " && !on.closest?.("button, a, summary")) play.click();
      else if (step !== undefined && on !== slider) {
        stop();
        go(step);
      } else return;
      event.preventDefault();
    }, { signal });
  }

  function nothing() {
    view.append(made("div", { className: "nothing" },
      made("p", { textContent: `Nothing is generated here: in ${[...new Set(recordings.map((one) => one.model))].join(" and ")} each token sees those after it too, so that none is the next. To see a model write, start` }),
      made("code", { textContent: 'pellucid view "In the beginning" --new-tokens 40' }),
      made("p", { textContent: "or another model that writes, by --model." })));
    say("Nothing is generated here");
  }
}
