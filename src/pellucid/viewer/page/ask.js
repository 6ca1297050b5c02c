// The text box of a served page: a text, the model that is to read it, and what was read before.
import { button, createElement, dropdown, truncate } from "./elements.js";

const KEY = "pellucid.texts";
const KEPT = 8; // texts that are at hand
const MOST_TEXT = 20_000; // letters, as in catalogue.py
const MOST_NEW = 256; // tokens, as in reading.py
const ENCODERS = new Set(["sentiment", "minilm"]); // of the models at hand, those that cannot generate
/** @type {Record<string, number>} */
const USUAL = { translator: 60 }; // new tokens; of the others none

/**
 * @param {(asked: Asked, signal: AbortSignal) => Promise<void>} read reads a text and shows it
 * @param {(message: string) => void} setStatus
 */
export function askForm(read, setStatus) {
  let running = new AbortController();
  /** @type {Asked | undefined} */
  let last;
  const text = createElement("textarea", { rows: 1, dir: "auto", maxLength: MOST_TEXT, placeholder: "Type a text for a model to read", data: { "aria-label": "Text" } });
  const count = createElement("input", { type: "number", min: 0, max: MOST_NEW, value: 0, required: true });
  const counted = createElement("label", {}, "New tokens ", count);
  const submit = createElement("button", { type: "submit", textContent: "Read" });
  const complaint = createElement("p", { className: "refused", data: { role: "alert" } });
  let models = createElement("label");
  const recent = createElement("span", {});
  const form = createElement("form", { className: "ask", data: { "aria-label": "Read a text" } }, text, models, counted, submit, recent, complaint);
  const toggle = button("✎", "Read another text", () => show(form.hidden));
  const select = () => /** @type {HTMLSelectElement} */ (models.querySelector("select"));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value.trim()) send({ model: select().value, text: text.value, new_tokens: counted.hidden ? 0 : count.valueAsNumber });
    else text.focus();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  /** @param {boolean} isShown */
  function show(isShown) {
    form.hidden = !isShown;
    toggle.setAttribute("aria-expanded", String(isShown));
    if (isShown && document.activeElement === toggle) text.focus();
  }

  /** @param {string} model */
  function choose(model) {
    select().value = model;
    counted.hidden = ENCODERS.has(model);
    count.value = String(USUAL[model] ?? 0);
  }

  /** @param {Asked} asked */
  async function send(asked) {
    running.abort(); // a newer text takes its place
    const mine = (running = new AbortController());
    complaint.textContent = "";
    submit.textContent = "Reading …";
    setStatus(`The model ${asked.model} reads …`);
    try {
      last = asked;
      await read(asked, mine.signal);
      remember(asked);
      fillRecent();
    } catch (error) {
      if (mine.signal.aborted) return;
      complaint.textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
      setStatus(complaint.textContent);
    } finally {
      if (running === mine) submit.textContent = "Read";
    }
  }

  function fillRecent() {
    const all = remembered();
    const options = all.map(({ text: one, model }, i) => /** @type {[string, string]} */ ([String(i), `${truncate(one, 40)} (${model})`]));
    recent.replaceChildren(...(all.length ? [dropdown("Recent", [["", "choose"], ...options], "", (value) => {
      const asked = all[Number(value)];
      if (value === "" || !asked) return;
      choose(asked.model);
      Object.assign(text, { value: asked.text });
      count.value = String(asked.new_tokens);
      send(asked);
    })] : []));
  }

  return {
    form,
    toggle,
    show,
    /** Show what is read now. @param {About} about @param {boolean} isAside whether the view can do without */
    fill({ models: names, recordings: [now] }, isAside) {
      if (!names.length) {
        form.remove();
        toggle.remove();
        return;
      }
      const fresh = dropdown("Model", names.map((name) => [name, name]), "", choose);
      models.replaceWith(fresh);
      models = fresh;
      choose(now && names.includes(now.model) ? now.model : names[0]);
      if (last && last.model === now?.model) count.value = String(last.new_tokens);
      if (now?.text) text.value = now.text;
      fillRecent();
      show((!now && !isAside) || matchMedia("(min-width: 621px) and (min-height: 481px)").matches);
    },
  };
}

/** What was read before, the newest first. @returns {Asked[]} */
function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return found.filter((one) => typeof one?.text === "string" && typeof one.model === "string" && Number.isInteger(one.new_tokens));
  } catch {
    return []; // as where the browser stores nothing
  }
}

/** @param {Asked} asked */
function remember(asked) {
  const others = remembered().filter((one) => one.text !== asked.text || one.model !== asked.model);
  try {
    localStorage.setItem(KEY, JSON.stringify([asked, ...others].slice(0, KEPT)));
  } catch {
    // The page works without.
  }
}
