// Heads whose weights the page computes itself, from the query and key in a file: weight = exp(score - logsumexp).

/** The heads of a file; `ask` computes a tile or an area of single weights. @param {string[]} parts @param {Record<string, ComputedHead>} heads @param {number} side @returns {Promise<ComputedHeads>} */
export async function openComputedHeads(parts, heads, side) {
  const port = await started();
  /** @type {Map<number, { done: (found: Numbers) => void, failed: (error: any) => void }>} */
  const waiting = new Map();
  let last = 0;
  port.onmessage = ({ data: { id, error, ...found } }) => {
    const one = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) one?.done(found);
    else one?.failed(new Error(error));
  };
  port.postMessage({ parts, heads, side });
  return {
    has: (head) => Object.hasOwn(heads, head),
    ask: (question, signal) => new Promise((done, failed) => {
      signal?.throwIfAborted();
      const id = ++last;
      waiting.set(id, { done, failed });
      signal?.addEventListener("abort", () => {
        if (waiting.delete(id)) port.postMessage({ cancel: id });
        failed(signal.reason);
      }, { once: true });
      port.postMessage({ id, ...question });
    }),
  };
}

/** A worker, or this thread where the browser starts none. @returns {Promise<Worker | MessagePort>} */
function started() {
  const here = () => {
    const { port1, port2 } = new MessageChannel();
    answerWithWeights(port2);
    return port1;
  };
  const url = URL.createObjectURL(new Blob([`(${answerWithWeights})(self)`], { type: "text/javascript" }));
  return new Promise((found) => {
    try {
      const worker = new Worker(url);
      worker.onmessage = () => found(worker);
      worker.onerror = () => found(here());
    } catch {
      found(here());
    }
  }).finally(() => URL.revokeObjectURL(url));
}

/** Answers questions that arrive at a port. Its source is that of the worker, so it uses nothing from outside. @param {any} port */
export function answerWithWeights(port) {
  const AT_ONCE = 2 ** 25; // multiplications up to which a tile is not worth a draft: 5 to 20 ms
  const STEP = 2 ** 24; // multiplications between two looks at what is more urgent
  const SAMPLED = 64; // rows of a draft, at most
  const FEWEST = 8; // and at least
  const FINER = 3; // levels whose cells are kept, from the top one down, as on the server
  const MOST_BYTES = 2 ** 28; // of query and key, and as much of cells
  const MOST_AHEAD = 2 ** 26; // of query and key that nobody has asked for
  const LOG2E = Math.LOG2E;
  const [LN2_HIGH, LN2_LOW] = [0.693147180369123816490, 1.90821492927058770002e-10];
  const POWERS = Float64Array.from({ length: 1100 }, (_, i) => 2 ** (i - 1075));
  const HALVES = Float32Array.from({ length: 2 ** 16 }, (_, bits) => {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  });
  let side = 0;
  let parts;
  let heads;

  /** What was used last, up to a size in bytes. */
  function cache() {
    const found = new Map();
    let bytes = 0;
    return {
      get(name) {
        const one = found.get(name);
        if (one) {
          found.delete(name);
          found.set(name, one);
        }
        return one?.value;
      },
      put(name, size, value) {
        found.set(name, { value, size });
        bytes += size;
        for (const [oldest, one] of found) {
          if (bytes <= MOST_BYTES || oldest === name) break;
          found.delete(oldest);
          bytes -= one.size;
        }
        return value;
      },
    };
  }
  const unpacked = cache();
  const pooled = cache();

  /** @param {string} text in base64 @returns {Uint8Array<ArrayBuffer>} */
  function bytes(text) {
    if ("fromBase64" in Uint8Array) return /** @type {any} */ (Uint8Array).fromBase64(text);
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }
  const decoding = new Map(); // a promise for each part that is being decoded
  /** A part of the file, decoded. */
  async function part(number, decode) {
    const known = unpacked.get(number) ?? decoding.get(number);
    if (known) return known;
    const decoded = async () => {
      const stream = new Blob([bytes(parts[number])]).stream().pipeThrough(new DecompressionStream("gzip"));
      const value = decode(await new Response(stream).arrayBuffer());
      return unpacked.put(number, value.byteLength, value);
    };
    decoding.set(number, decoded().finally(() => decoding.delete(number)));
    return decoding.get(number);
  }
  /** float16: the upper bytes of all numbers, then the lower. */
  function halves(buffer) {
    const bytes = new Uint8Array(buffer);
    const count = bytes.length / 2;
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) values[i] = HALVES[(bytes[i] << 8) | bytes[count + i]];
    return values;
  }
  const floats = (buffer) => new Float32Array(buffer);
  /** The first and end of each run of keys that a row sees; each is stored as its difference to the run before. */
  function edges(buffer) {
    const values = new Int32Array(buffer);
    for (let i = 2; i < values.length; i++) values[i] += values[i - 2];
    return values;
  }
  /** How many runs come before each row's. */
  function offsets(buffer) {
    const counts = new Int32Array(buffer);
    const found = new Int32Array(counts.length + 1);
    for (let i = 0; i < counts.length; i++) found[i + 1] = found[i] + counts[i];
    return found;
  }
  async function open(name) {
    const head = heads[name];
    const optional = (number, decode) => (number === null ? null : part(number, decode));
    return {
      ...head,
      name,
      query: await part(head.query, halves),
      key: await part(head.key, halves),
      logsumexp: await part(head.logsumexp, floats),
      bias: await optional(head.bias, floats),
      counts: await optional(head.counts, offsets),
      runs: await optional(head.runs, edges),
      top: Math.max(0, Math.ceil(Math.log2(Math.max(head.queries, head.keys) / side))),
    };
  }

  /** exp(x) of x up to about 0, to 1e-8. */
  function exp(x) {
    if (x < -700) return 0;
    const k = (x * LOG2E - 0.5) | 0;
    const r = x - k * LN2_HIGH - k * LN2_LOW;
    const small = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r / 5040))))));
    return small * POWERS[k + 1075];
  }

  /**
   * A module in WebAssembly for `vectorScores`, or null where the browser runs none, or none with vectors.
   * scores(keys, keysEnd, query, queryEnd, out, stride): keys are panels of 8, (panels, dim, 8); queries are
   * (dim, 4); scores go to four lines, `stride` bytes apart. All float32.
   */
  function compiled() {
    const [KEYS, KEYS_END, QUERY, QUERY_END, OUT, STRIDE, AT, SUMS, LEFT, RIGHT, ONE, ZERO] = [0, 1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18];
    const get = (local) => [0x20, local];
    const set = (local) => [0x21, local];
    const move = (local, by) => [...get(local), 0x41, by, 0x6a, ...set(local)]; // local += by, below 64
    const load = (from, offset) => [...get(from), 0xfd, 0, 2, offset];
    const splat = (from, offset) => [...get(from), 0xfd, 9, 2, offset]; // one number, four times
    const store = (value, offset) => [...get(value), 0xfd, 11, 2, offset];
    const addProduct = (sum, left, right) => [...get(sum), ...get(left), ...get(right), 0xfd, 0xe6, 1, 0xfd, 0xe4, 1, ...set(sum)];
    const loop = (body, at, end) => [0x03, 0x40, ...body, ...get(at), ...get(end), 0x49, 0x0d, 0, 0x0b]; // do ... while (at < end)
    const rows = [0, 1, 2, 3];
    const address = (row) => [...get(OUT), ...rows.slice(0, row).flatMap(() => [...get(STRIDE), 0x6a])];
    const multiply = loop([
      ...load(KEYS, 0), ...set(LEFT), ...load(KEYS, 16), ...set(RIGHT),
      ...rows.flatMap((row) => [...splat(AT, 4 * row), ...set(ONE), ...addProduct(SUMS + 2 * row, ONE, LEFT), ...addProduct(SUMS + 2 * row + 1, ONE, RIGHT)]),
      ...move(KEYS, 32), ...move(AT, 16),
    ], AT, QUERY_END);
    const body = [
      2, 1, 0x7f, 12, 0x7b, // locals: AT is an i32, those from SUMS to ZERO are vectors
      ...loop([
        ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((sum) => [...get(ZERO), ...set(SUMS + sum)]),
        ...get(QUERY), ...set(AT),
        ...multiply,
        ...rows.flatMap((row) => [0, 1].flatMap((half) => [...address(row), ...store(SUMS + 2 * row + half, 16 * half)])),
        ...move(OUT, 32),
      ], KEYS, KEYS_END),
      0x0b,
    ];
    const number = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...number(n >> 7)]);
    const list = (bytes) => [...number(bytes.length), ...bytes];
    const section = (id, bytes) => [id, ...list(bytes)];
    const name = (text) => list([...text].map((letter) => letter.charCodeAt(0)));
    const bytes = [
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, [1, 0x60, 6, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0]), // a function of six i32
      ...section(3, [1, 0]),
      ...section(5, [1, 0, 1]), // a memory of one page
      ...section(7, [2, ...name("memory"), 2, 0, ...name("scores"), 0, 0]),
      ...section(10, [1, ...list(body)]),
    ];
    try {
      return /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes))).exports);
    } catch {
      return null;
    }
  }
  const module = compiled();
  let loaded = null; // whose keys are in the memory of the module

  /** As `plainScores`, some four times as fast. */
  function vectorScores(head, first, end) {
    const { query, key, dim } = head;
    const panels = Math.ceil((end - first) / 8);
    const [queryAt, outAt, stride] = [32 * panels * dim, 32 * panels * dim + 16 * dim, 32 * panels];
    const me = {};
    function load() {
      loaded = me;
      const missing = outAt + 4 * stride - module.memory.buffer.byteLength;
      if (missing > 0) module.memory.grow(Math.ceil(missing / 2 ** 16));
      const memory = new Float32Array(module.memory.buffer);
      for (let j = first; j < end; j++) {
        const to = ((j - first) >> 3) * 8 * dim + ((j - first) & 7);
        for (let t = 0; t < dim; t++) memory[to + 8 * t] = key[j * dim + t];
      }
    }
    return (rows, left, right) => {
      if (loaded !== me) load();
      const memory = new Float32Array(module.memory.buffer);
      rows.forEach((row, i) => {
        for (let t = 0; t < dim; t++) memory[queryAt / 4 + 4 * t + i] = query[row * dim + t];
      });
      const [start, stop] = [(left - first) >> 3, (right - first + 7) >> 3];
      module.scores(32 * dim * start, 32 * dim * stop, queryAt, outAt, outAt + 32 * start, stride);
      return rows.map((_, i) => memory.subarray((outAt + i * stride) / 4 + left - first, (outAt + i * stride) / 4 + right - first));
    };
  }

  /** A function from four rows and a range of keys, within those from `first` to `end`, to the rows' query . key. */
  function plainScores(head, first, end) {
    const { query, key, dim } = head;
    const lines = [0, 1, 2, 3].map(() => new Float64Array(end - first));
    const [line0, line1, line2, line3] = lines;
    return (rows, left, right) => {
      const [a, b, c, d] = rows.map((row) => row * dim);
      let j = left;
      for (; j + 1 < right; j += 2) {
        const at = j * dim;
        const next = at + dim;
        let a0 = 0, a1 = 0, b0 = 0, b1 = 0, c0 = 0, c1 = 0, d0 = 0, d1 = 0;
        for (let t = 0; t < dim; t++) {
          const k0 = key[at + t];
          const k1 = key[next + t];
          const qa = query[a + t];
          const qb = query[b + t];
          const qc = query[c + t];
          const qd = query[d + t];
          a0 += qa * k0;
          a1 += qa * k1;
          b0 += qb * k0;
          b1 += qb * k1;
          c0 += qc * k0;
          c1 += qc * k1;
          d0 += qd * k0;
          d1 += qd * k1;
        }
        const to = j - left;
        line0[to] = a0;
        line0[to + 1] = a1;
        line1[to] = b0;
        line1[to + 1] = b1;
        line2[to] = c0;
        line2[to + 1] = c1;
        line3[to] = d0;
        line3[to + 1] = d1;
      }
      for (; j < right; j++) {
        lines.forEach((line, i) => {
          let sum = 0;
          for (let t = 0; t < dim; t++) sum += query[rows[i] * dim + t] * key[j * dim + t];
          line[j - left] = sum;
        });
      }
      return lines;
    };
  }

  /** Which keys from `first` to `end` a row sees some of. */
  function seen(head, row, first, end) {
    if (!head.counts) return [first, end];
    const [from, to] = [head.counts[row], head.counts[row + 1]];
    if (from === to) return [end, end];
    return [Math.max(first, head.runs[2 * from]), Math.min(end, head.runs[2 * to - 1])];
  }

  /** Weights out of the scores of one row at the keys from `first` to `end`, in place. */
  function weigh(head, row, line, first, end) {
    const { bias, softcap, counts, runs } = head;
    const logsumexp = head.logsumexp[row];
    let factor = head.scale;
    if (softcap !== null || bias) {
      const shift = first + head.slant * (head.queries - 1 - row);
      for (let i = 0; i < end - first; i++) {
        const scaled = line[i] * factor;
        line[i] = (softcap === null ? scaled : softcap * Math.tanh(scaled / softcap)) + (bias ? bias[shift + i] : 0);
      }
      factor = 1;
    }
    let at = first; // all before is done
    const [from, to] = counts ? [counts[row], counts[row + 1]] : [0, 1];
    for (let run = logsumexp === -Infinity ? to : from; run < to; run++) {
      const start = counts ? Math.max(at, runs[2 * run]) : first;
      const stop = counts ? Math.min(end, runs[2 * run + 1]) : end;
      if (stop <= start) continue;
      line.fill(0, at - first, start - first);
      for (let i = start - first; i < stop - first; i++) line[i] = exp(line[i] * factor - logsumexp);
      at = stop;
    }
    line.fill(0, at - first, end - first);
  }

  /** The weights of some rows at the keys from `first` to `end`: `each` gets the place of a row, where its line begins, and the line. Pauses now and then. */
  function* lines(head, rows, first, end, each) {
    const scores = (module ? vectorScores : plainScores)(head, first, end);
    let work = 0;
    for (let i = 0; i < rows.length; i += 4) {
      const some = [0, 1, 2, 3].map((next) => rows[Math.min(i + next, rows.length - 1)]);
      const spans = some.map((row) => seen(head, row, first, end));
      const left = Math.min(...spans.map(([start]) => start));
      const right = Math.max(...spans.map(([, stop]) => stop));
      if (left >= right) continue;
      const four = scores(some, left, right);
      for (let next = 0; next < 4 && i + next < rows.length; next++) {
        weigh(head, some[next], four[next], left, right);
        each(i + next, left - first, four[next], right - left);
      }
      work += 4 * (right - left) * head.dim;
      if (work < STEP) continue;
      work = 0;
      yield;
    }
  }
  const range = (first, end) => Array.from({ length: end - first }, (_, i) => first + i);

  /** Single weights, (rows, keys). */
  function* area(head, rows, first, end) {
    const wide = end - first;
    const values = new Float32Array(rows.length * wide);
    yield* lines(head, rows, first, end, (row, left, line, length) => values.set(line.subarray(0, length), row * wide + left));
    return { values, shape: [rows.length, wide], isExact: true };
  }

  /** Sums and maxima of the cells of rows in groups of `high`. */
  function* cells(head, rows, high, level, first, end) {
    const down = Math.ceil(rows.length / high);
    const across = Math.ceil((end - first) / 2 ** level);
    const sums = new Float64Array(down * across);
    const most = new Float64Array(down * across);
    yield* lines(head, rows, first, end, (row, left, line, length) => {
      const start = Math.floor(row / high) * across;
      for (let i = 0; i < length;) {
        const cell = (left + i) >> level;
        const stop = Math.min(length, ((cell + 1) << level) - left);
        let sum = 0;
        let largest = most[start + cell];
        for (; i < stop; i++) {
          const weight = line[i];
          sum += weight;
          if (weight > largest || weight !== weight) largest = weight; // NaN stays
        }
        sums[start + cell] += sum;
        most[start + cell] = largest;
      }
    });
    return { sums, most, down, across };
  }

  const spanOf = (number, level, size) => [number * side * 2 ** level, Math.min(size, (number + 1) * side * 2 ** level)];
  /** The cells of a tile: of its scores, or of the four tiles of the level below. */
  function* cellsOf(head, level, row, column) {
    const name = [head.name, level, row, column].join("/");
    const known = pooled.get(name);
    if (known) return known;
    const [top, bottom] = spanOf(row, level, head.queries);
    const [left, right] = spanOf(column, level, head.keys);
    let found;
    if (level <= Math.max(1, head.top - FINER)) found = yield* cells(head, range(top, bottom), 2 ** level, level, left, right);
    else {
      const [down, across] = [Math.ceil((bottom - top) / 2 ** level), Math.ceil((right - left) / 2 ** level)];
      found = { sums: new Float64Array(down * across), most: new Float64Array(down * across), down, across };
      for (const [lower, further] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
        if (spanOf(2 * row + lower, level - 1, Infinity)[0] >= bottom) continue;
        if (spanOf(2 * column + further, level - 1, Infinity)[0] >= right) continue;
        const one = yield* cellsOf(head, level - 1, 2 * row + lower, 2 * column + further);
        for (let i = 0; i < one.sums.length; i++) {
          const y = (lower * side + Math.floor(i / one.across)) >> 1;
          const x = (further * side + (i % one.across)) >> 1;
          found.sums[y * across + x] += one.sums[i];
          found.most[y * across + x] = Math.max(found.most[y * across + x], one.most[i]);
        }
      }
    }
    return pooled.put(name, 2 * found.sums.byteLength, found);
  }

  /** The answer to one question. */
  function* answer(head, { area: asked, tile, reduce, isDraft }) {
    if (asked) return yield* area(head, range(asked[0], asked[0] + asked[2]), asked[1], asked[1] + asked[3]);
    const [level, row, column] = tile;
    const [top, bottom] = spanOf(row, level, head.queries);
    const [left, right] = spanOf(column, level, head.keys);
    if (level === 0) return yield* area(head, range(top, bottom), left, right);
    const cell = 2 ** level;
    const wide = (at) => Math.min(cell, right - left - at * cell);
    const perRow = (right - left) * head.dim;
    if (isDraft && (bottom - top) * perRow > AT_ONCE && !pooled.get([head.name, ...tile].join("/"))) {
      const down = Math.ceil((bottom - top) / cell);
      const few = Math.min(down, SAMPLED, Math.max(FEWEST, Math.floor(AT_ONCE / perRow)));
      const some = range(0, few).map((i) => top + Math.floor(((2 * i + 1) * (bottom - top)) / (2 * few)));
      const { sums, most, across } = yield* cells(head, some, 1, level, left, right);
      const values = new Float32Array(down * across);
      for (let i = 0; i < values.length; i++) {
        const at = Math.floor((Math.floor(i / across) * few) / down) * across + (i % across);
        values[i] = reduce === "max" ? most[at] : sums[at] / wide(i % across);
      }
      return { values, shape: [down, across], isExact: false };
    }
    const { sums, most, down, across } = yield* cellsOf(head, level, row, column);
    const high = (at) => Math.min(cell, bottom - top - at * cell);
    const values = reduce === "max" ? Float32Array.from(most)
      : Float32Array.from(sums, (sum, i) => sum / (high(Math.floor(i / across)) * wide(i % across)));
    return { values, shape: [down, across], isExact: true };
  }

  const jobs = new Map(); // in the order in which they were asked
  let isRunning = false;
  const { port1: bell, port2: other } = new MessageChannel();
  let wake = () => {};
  bell.onmessage = () => wake();
  /** Until messages that have arrived are read. */
  const turn = () => new Promise((go) => {
    wake = () => go(undefined);
    other.postMessage(0);
  });
  async function run() {
    isRunning = true;
    while (jobs.size) {
      const job = [...jobs.values()].find(({ question }) => question.isDraft || question.area) ?? jobs.values().next().value;
      try {
        job.steps ??= answer(await open(job.question.head), job.question);
        const { done, value } = job.steps.next();
        if (done && jobs.delete(job.question.id)) port.postMessage({ id: job.question.id, ...value }, [value.values.buffer]);
      } catch (error) {
        if (jobs.delete(job.question.id)) port.postMessage({ id: job.question.id, error: error.message });
      }
      await turn();
    }
    isRunning = false;
    ahead();
  }
  /** Decode heads before they are asked for, while a worker has nothing else to do: their first tile waits for that. */
  async function ahead() {
    let held = 0;
    for (const name of port === self ? Object.keys(heads) : []) {
      await new Promise((go) => setTimeout(go));
      if (isRunning || held > MOST_AHEAD) return;
      const { query, key } = await open(name).catch(() => ({ query: "", key: "" })); // who asks for it is told
      held += 4 * (query.length + key.length);
    }
  }
  port.onmessage = ({ data }) => {
    if (data.parts) {
      ({ parts, heads, side } = data);
      ahead();
    }
    else if (data.cancel) jobs.delete(data.cancel);
    else {
      jobs.set(data.id, { question: data, steps: null });
      if (!isRunning) run();
    }
  };
  port.postMessage({}); // it has started
}
