// The types that the modules share; `make lint` checks the modules against them.

/** One recorded attention: a layer of a recording. See viewer/catalogue.py. */
interface Layer {
  recording: number;
  name: string;
  stack: string;
  number: number;
  is_cross: boolean;
  is_causal: boolean;
  items: number;
  heads: number;
  queries: number;
  keys: number;
}

interface RecordingInfo {
  title: string;
  model: string;
  prompt: number | null;
  /** What was read; empty where that is unknown or long. */
  text: string;
  /** Whether its model is at hand, so that parts of it can be knocked out. */
  can_run: boolean;
}

/** The answer to "about". */
interface About {
  title: string;
  version: string;
  side: number;
  /** Those that can read a text. */
  models: string[];
  /** Changes with each text that is read. */
  edition: number;
  recordings: RecordingInfo[];
  layers: Layer[];
}

/** An answer in numbers; `isExact` is false for a draft made of sampled rows. */
interface Numbers {
  values: Float32Array<ArrayBuffer>;
  shape: number[];
  isExact: boolean;
}

/** The files that a page consists of. */
interface PageCode {
  script: string;
  style: string;
  file: string;
}

/** A text for a model to read, and how many tokens it may add. */
interface Asked {
  model: string;
  text: string;
  new_tokens: number;
}

/** Answers questions: see data_source.js. */
interface Source {
  json(path: string, signal?: AbortSignal): Promise<any>;
  numbers(path: string, signal?: AbortSignal): Promise<Numbers>;
  code?(): Promise<PageCode>;
  /** Of a server alone: let a model read a text, which "about" then tells of. */
  read?(asked: Asked, signal: AbortSignal): Promise<void>;
}

type CachedAnswer = Numbers | { json: any };

interface CachedSource extends Source {
  answers: Map<string, CachedAnswer>;
  clear(): void;
}

/** What the weights of a head are computed from; numbers of parts of the file. See computed_heads.py. */
interface ComputedHead {
  queries: number;
  keys: number;
  dim: number;
  scale: number;
  softcap: number | null;
  query: number;
  key: number;
  logsumexp: number;
  counts: number | null;
  runs: number | null;
  bias: number | null;
  slant: number;
}

interface ComputedHeads {
  has(head: string): boolean;
  ask(
    question: { head: string; area?: number[]; tile?: number[]; reduce?: string; isDraft?: boolean },
    signal?: AbortSignal,
  ): Promise<Numbers>;
}

/** Where the state of the page is stored: see url_state.js. */
interface Url {
  readonly hash: string;
  go(hash: string): void;
  replace(hash: string): void;
  onChange(call: () => void): void;
}

type UrlState = Record<string, string | number>;

interface Theme {
  readonly isDark: boolean;
  readonly table: Uint32Array;
  /** A colour of the style sheet, like "--ink". */
  colour(name: string): string;
  onChange(call: () => void): void;
}

/** What a view can export. */
interface Exportable {
  csv: () => Cell[][] | Promise<Cell[][]>;
  /** The paths of the answers that a file needs; by default all that were asked for. */
  needs?: () => Set<string>;
  /** A lesson, as `pellucid explain --from` reads it. */
  json?: () => string;
  /** Files of this view alone: the name and content of each. */
  files?: Record<string, () => Promise<[string, string]>>;
}

type Cell = string | number | null | undefined;

/** What every view is given. */
interface Page {
  about: About;
  source: CachedSource;
  params: URLSearchParams;
  view: HTMLElement;
  controls: HTMLElement;
  /** Aborted when another view is shown. */
  signal: AbortSignal;
  theme: Theme;
  setStatus(message: string): void;
  go(view: string, state: UrlState): void;
  saveState(state: UrlState): void;
  setExport(exportable: Exportable): void;
}

/** Which head of which layer, and which text of the batch. */
interface HeadPlace {
  layer: number;
  item: number;
  head: number;
}

interface TokenCell {
  query: number;
  key: number;
}

/** The tokens of both sides; null until they are loaded. */
interface TokenSides {
  queries: string[] | null;
  keys: string[] | null;
}

type Side = "queries" | "keys";
/** Positions, the end not included. */
type Span = [first: number, end: number];

/** Anything that a head's map is drawn from: see tile_cache.js. */
interface TileSource {
  queries: number;
  keys: number;
  /** Cells of a tile, each way. */
  side: number;
  /** The level at which one tile shows everything. */
  top: number;
  reduce: string;
  readonly problem: string | undefined;
  readonly isPending: boolean;
  request(spots: Spot[]): void;
  find(spot: Spot): Tile | undefined;
  exact(spots: Spot[]): Promise<Tile[]>;
}

/** Which tile. */
interface Spot {
  level: number;
  row: number;
  column: number;
}

/** Cells, with their picture and the colours that it was painted with. */
interface Tile {
  values: Float32Array;
  width: number;
  height: number;
  isExact: boolean;
  most: number;
  image: HTMLCanvasElement | null;
  shades: Uint32Array | null;
}

interface HTMLCanvasElement {
  /** Draws the canvas again, into a picture that is exported. */
  paint?: (pen: any) => void;
}
