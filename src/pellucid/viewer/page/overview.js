// The Overview view: all heads as thumbnails, by layer or sorted by what they do.
import { shade } from "./colours.js";
import { createElement, dropdown, itemDropdown } from "./elements.js";
import { HeadCard, neighbour } from "./head_card.js";
import { arrangement, layerGrids, rankedList } from "./head_grid.js";
import { loadEffects } from "./head_effects.js";
import { barLength, measuresOf, ROLES } from "./head_measures.js";
import { description, introduction, quotes } from "./head_panel.js";
import { choiceParam, integerParam } from "./url_state.js";

/** @param {Page} page */
export async function overview(page) {
  const view = new Overview(page);
  await Promise.all([view.loadThumbnails(), view.loadMeasures(), view.loadEffects()]);
}

class Overview {
  #page;
  #layers;
  #measures;
  /** @type {Map<string, number>} by layer and head, once they are asked for */
  #effects = new Map();
  #isMeasuringEffects = false;
  #sort; // "layer", or a measure
  #role; // that is shown; all if empty
  #tint; // a measure that colours the heads; none if empty
  #item;
  #cards;
  /** @type {Map<Element | null, HeadCard>} */
  #cardOf;
  /** @type {HeadCard | undefined} */
  #pointed;
  #progress = "measuring heads";
  #groups = 1; // of layers beside each other
  #list = createElement("div", { className: "list", data: { role: "group", "aria-label": "Heads. Arrow keys move between them; Enter opens the map of one." } });
  #panel = createElement("section", { className: "panel", tabIndex: 0, data: { "aria-label": "About the head" } });
  #roles;

  /** @param {Page} page */
  constructor(page) {
    const { about, params, signal } = page;
    this.#page = page;
    this.#layers = about.layers;
    this.#measures = measuresOf(about);
    const named = Object.entries(this.#measures).map(([key, [name]]) => /** @type {[string, string]} */ ([key, name]));
    this.#sort = choiceParam(params, "sort", Object.keys(this.#measures), "layer");
    this.#role = choiceParam(params, "behaviour", Object.keys(ROLES), "");
    this.#tint = choiceParam(params, "tint", Object.keys(this.#measures), "");
    const largest = this.#layers.reduce((best, one, i) => (one.items > this.#layers[best].items ? i : best), 0);
    this.#item = integerParam(params, "item", this.#layers[largest].items - 1);
    this.#cards = this.#layers.flatMap((layer, i) => Array.from({ length: layer.heads }, (_, head) => new HeadCard(about, i, head)));
    this.#cardOf = new Map(this.#cards.map((card) => [card.element, card]));
    this.#pointed = this.#find(Number(params.get("layer") ?? Number.NaN), Number(params.get("head") ?? Number.NaN));
    this.#roles = dropdown("Behaviour", [["", "all"], ...Object.keys(ROLES).map((name) => /** @type {[string, string]} */ ([name, name]))], this.#role, (role) => {
      this.#role = role;
      this.#changed();
    });
    page.view.append(createElement("div", { className: "overview" }, this.#list, this.#panel));
    page.controls.append(
      dropdown("Sort by", [["layer", "layer"], ...named], this.#sort, (sort) => {
        this.#sort = sort;
        this.#changed();
      }),
      this.#roles,
      dropdown("Tint", [["", "none"], ...named], this.#tint, (tint) => {
        this.#tint = tint;
        this.#changed();
      }),
      itemDropdown(this.#layers, largest, this.#item, (item) => page.go("overview", { ...this.#state(), item })),
    );
    this.#listen();
    this.#arrange();
    this.#explain();
    page.theme.onChange(() => {
      this.#cards.forEach((card) => this.#paint(card));
      this.#label();
    });
    page.setExport({ csv: () => this.#csv() });
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(this.#list);
    signal.addEventListener("abort", () => resized.disconnect());
  }

  /** @param {number} layerIndex @param {number} head */
  #find(layerIndex, head) {
    return this.#cards.find((card) => card.layerIndex === layerIndex && card.head === head);
  }

  /** @returns {UrlState} */
  #state() {
    const token = this.#page.params.get("token");
    return {
      ...(this.#sort === "layer" ? {} : { sort: this.#sort }),
      ...(this.#role ? { behaviour: this.#role } : {}),
      ...(this.#tint ? { tint: this.#tint } : {}),
      ...(this.#item ? { item: this.#item } : {}),
      ...(this.#pointed ? { layer: this.#pointed.layerIndex, head: this.#pointed.head } : {}),
      ...(token === null ? {} : { token }),
    };
  }

  #changed() {
    this.#page.saveState(this.#state());
    this.#arrange();
    this.loadEffects();
  }

  /* What is shown */

  /** @param {string} role */
  #count(role) {
    return this.#cards.filter(({ row }) => row?.role === role).length;
  }

  /** The cards that are shown. Sorted as the library sorts: the largest first, ties in order, unknown values last. */
  #shown() {
    const cards = this.#cards.filter(({ row }) => !this.#role || row?.role === this.#role);
    if (this.#sort === "layer") return cards;
    /** @param {HeadCard} card @returns {number} */
    const value = ({ row }) => row?.[this.#sort] ?? -Infinity;
    return cards.sort((a, b) => value(b) - value(a) || 0);
  }

  #arrange() {
    const focused = this.#cardOf.get(/** @type {Document | ShadowRoot} */ (this.#list.getRootNode()).activeElement);
    const isRanked = this.#sort !== "layer";
    this.#label();
    const shown = this.#shown();
    this.#list.classList.toggle("ranked", isRanked);
    this.#list.replaceChildren(...(isRanked ? rankedList(shown) : layerGrids(shown, this.#groups)));
    if (!shown.length) {
      const isMeasured = this.#cards.every((card) => card.row);
      this.#list.append(createElement("p", { className: "none", textContent: isMeasured ? "No head does this clearly." : "None so far." }));
    }
    const stop = [focused, this.#pointed, shown[0]].find((card) => card && shown.includes(card));
    this.#setTabStop(stop);
    if (focused === stop) stop?.element.focus({ preventScroll: true });
    this.#resize();
    this.#tell(shown.length);
  }

  /** Tab leads to one card; arrow keys lead to the others. @param {HeadCard | undefined} stop */
  #setTabStop(stop) {
    this.#cards.forEach((card) => { card.element.tabIndex = card === stop ? 0 : -1; });
  }

  #resize() {
    const { size, groups } = arrangement(this.#list, this.#layers, this.#sort !== "layer");
    this.#list.style.setProperty("--size", `${size}px`);
    if (groups === this.#groups) return;
    this.#groups = groups;
    this.#arrange();
  }

  /** @param {number} count heads that are shown */
  #tell(count) {
    const all = this.#cards.length;
    const parts = [this.#progress || (this.#role ? `${count} of ${all} heads: ${this.#role}` : `${all} heads`)];
    if (this.#sort !== "layer") parts.push(`from highest to lowest ${this.#measures[this.#sort].join(": ")}`);
    this.#page.setStatus(parts.join(" · "));
  }

  #explain() {
    const { recordings } = this.#page.about;
    const some = this.#pointed ? [recordings[this.#pointed.layer.recording]] : recordings;
    this.#panel.replaceChildren(...quotes(some), ...(this.#pointed
      ? description(this.#pointed, this.#cards, this.#sort)
      : introduction((role) => this.#count(role))));
  }

  /** @param {HeadCard} card */
  #paint(card) {
    card.paint(this.#page.theme.table);
    if (card === this.#pointed) this.#explain();
  }

  #csv() {
    const names = Object.keys(this.#measures);
    const hasRecordings = this.#page.about.recordings.length > 1;
    const rows = this.#shown().flatMap(({ row, recording }) => (row
      ? [[...(hasRecordings ? [recording] : []), row.name, row.label, row.head, row.role, ...names.map((name) => row[name])]]
      : []));
    return [[...(hasRecordings ? ["recording"] : []), "module", "layer", "head", "role", ...names], ...rows];
  }

  #label() {
    const rows = this.#cards.flatMap(({ row }) => row ?? []);
    const { theme } = this.#page;
    this.#cards.forEach((card) => card.label(this.#sort, this.#tint, (row) => shade(barLength(this.#tint, row, rows), theme.table)));
  }

  /* What is loaded */

  async loadThumbnails() {
    const { source, signal } = this.#page;
    for (const [i, layer] of this.#layers.entries()) {
      try {
        const { values, shape: [, height, width] } = await source.numbers(`thumbnails/${i}/${Math.min(this.#item, layer.items - 1)}`, signal);
        for (const card of this.#cards.filter(({ layerIndex }) => layerIndex === i)) {
          const start = card.head * height * width;
          card.setThumbnail(values.subarray(start, start + height * width), height, width);
          this.#paint(card);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#progress = error.message;
        this.#tell(this.#shown().length);
      }
    }
  }

  /** The server measures one layer more with each request. */
  async loadMeasures() {
    const { source, signal } = this.#page;
    for (let before = -1; ;) {
      let answer;
      try {
        answer = await source.json("heads", signal);
      } catch (error) {
        this.#progress = `not measured: ${error.message}`;
        break;
      }
      const { done, of, rows } = answer;
      for (const row of rows) {
        const card = this.#find(row.layer_index, row.head);
        if (card) card.row = this.#withEffect(row);
      }
      const isStuck = done === before; // as in a file that was saved while heads were measured
      this.#progress = done >= of ? "" : isStuck ? `${done} of ${of} layers are measured` : `measuring heads: ${done} of ${of} layers`;
      if (isStuck || done >= of) break;
      before = done;
      this.#measured();
    }
    if (signal.aborted) return;
    this.#measured();
    for (const option of this.#roles.querySelectorAll("option")) if (option.value) option.textContent = `${option.value} (${this.#count(option.value)})`;
  }

  /** @param {import("./head_measures.js").HeadRow} row */
  #withEffect(row) {
    const effect = this.#effects.get(`${row.layer_index}.${row.head}`);
    return effect === undefined ? row : { ...row, effect };
  }

  /** What heads matter, where they are sorted or tinted by it: each head is knocked out in turn. */
  async loadEffects() {
    if (this.#isMeasuringEffects || ![this.#sort, this.#tint].includes("effect")) return;
    this.#isMeasuringEffects = true;
    const { source, signal } = this.#page;
    try {
      await loadEffects(source, signal, ({ done, of, rows }) => {
        for (const { layer_index: layer, head, effect } of rows) this.#effects.set(`${layer}.${head}`, effect);
        for (const card of this.#cards) if (card.row) card.row = this.#withEffect(card.row);
        this.#progress = done < of ? `knocking out each head: ${done} of ${of} layers` : "";
        this.#measured();
      });
    } catch (error) {
      if (signal.aborted) return;
      this.#progress = `effects not measured: ${error.message}`;
      this.#tell(this.#shown().length);
    }
  }

  #measured() {
    if (this.#sort === "layer" && !this.#role) {
      this.#label();
      this.#tell(this.#cards.length);
    } else this.#arrange();
    this.#explain();
  }

  /* Pointer and keyboard */

  /** @param {EventTarget | null} target */
  #cardAt(target) {
    return target instanceof Element ? this.#cardOf.get(target.closest(".head")) : undefined;
  }

  /** @param {EventTarget | null} target */
  #point(target) {
    const card = this.#cardAt(target);
    if (!card || card === this.#pointed) return;
    this.#pointed?.element.classList.remove("pointed");
    this.#pointed = card;
    card.element.classList.add("pointed");
    this.#explain();
  }

  #listen() {
    const { signal } = this.#page;
    this.#list.addEventListener("pointerover", (event) => this.#point(event.target), { signal });
    this.#list.addEventListener("focusin", (event) => {
      this.#point(event.target);
      this.#setTabStop(this.#pointed);
      this.#page.saveState(this.#state());
    }, { signal });
    this.#list.addEventListener("click", (event) => {
      const card = this.#cardAt(event.target);
      if (card) this.#page.go("map", { layer: card.layerIndex, head: card.head, item: Math.min(this.#item, card.layer.items - 1) });
    }, { signal });
    this.#list.addEventListener("keydown", (event) => {
      const card = this.#cardAt(event.target);
      const to = card && neighbour([...this.#list.querySelectorAll("button")], event.key, card.element);
      if (!to) return;
      event.preventDefault();
      to.focus();
    }, { signal });
  }
}
