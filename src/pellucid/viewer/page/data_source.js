// Where answers come from: a server here, the kernel of a notebook (widget.js) or the file itself
// (offline_source.js). All are of the type Source in types.d.ts.

const MOST_BYTES = 64 * 2 ** 20; // of the numbers that a view keeps for its export
const BIDI_CONTROLS = /[\u202a-\u202e\u2066-\u2069]/g; // they would reorder the text around them, numbers included
/** Paths of answers that every view needs. */
export const SHARED_ANSWERS = /^(about|heads|keys|queries)\b/;

/** The server that the page came from. @returns {Source} */
export function serverSource() {
  let edition = ""; // of what is shown, lest an answer be about something else
  /** @param {string} path @param {RequestInit} [options] */
  const request = async (path, options = {}) => {
    const found = await fetch(path, options);
    if (found.ok) return found;
    const { error } = await found.json().catch(() => ({ error: `the server answered with status ${found.status}` }));
    throw new Error(error);
  };
  /** @param {string} path @param {AbortSignal} [signal] */
  const answer = (path, signal) => request(path, { signal, headers: path === "about" || !edition ? {} : { "X-Edition": edition } });
  /** @param {string} name */
  const text = async (name) => (await answer(`page/${name}`)).text();
  return {
    json: async (path, signal) => {
      const found = await (await answer(path, signal)).json();
      if (path === "about") edition = String(found.edition);
      return found;
    },
    read: async (asked, signal) => {
      const found = await request("read", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked), signal });
      await found.json();
    },
    numbers: async (path, signal) => {
      const found = await answer(path, signal);
      const shape = (found.headers.get("X-Shape") ?? "").split(",").map(Number);
      return { values: new Float32Array(await found.arrayBuffer()), shape, isExact: found.headers.get("X-Exact") === "1" };
    },
    code: async () => {
      const [script, style, file] = await Promise.all(["bundle.js", "style.css", "file.html"].map(text));
      return { script, style, file };
    },
  };
}

/** A source that keeps its answers until `clear`, so that they can be put into a file. @param {Source} source @returns {CachedSource} */
export function cachedSource(source) {
  /** @type {Map<string, CachedAnswer>} */
  const answers = new Map();
  let bytes = 0;
  /** @param {CachedAnswer} [answer] */
  const size = (answer) => (answer && "values" in answer ? answer.values.byteLength : 0);
  /** @template {CachedAnswer} Answer @param {string} path @param {Answer} answer */
  const store = (path, answer) => {
    bytes += size(answer) - size(answers.get(path));
    answers.delete(path);
    answers.set(path, answer);
    for (const [oldest, one] of answers) {
      if (bytes <= MOST_BYTES) break;
      if (!size(one)) continue;
      bytes -= size(one);
      answers.delete(oldest);
    }
    return answer;
  };
  return {
    ...source,
    json: async (path, signal) => store(canonicalPath(path), { json: withoutBidiControls(await source.json(path, signal)) }).json,
    numbers: async (path, signal) => store(canonicalPath(path), await source.numbers(path, signal)),
    answers,
    /** Keep only what every view needs. */
    clear: () => {
      bytes = 0;
      for (const path of answers.keys()) if (!SHARED_ANSWERS.test(path)) answers.delete(path);
    },
  };
}

/** An answer whose words cannot reorder the text beside them. @param {any} answer */
function withoutBidiControls(answer) {
  const text = JSON.stringify(answer);
  return text.search(BIDI_CONTROLS) < 0 ? answer : JSON.parse(text.replace(BIDI_CONTROLS, "\ufffd"));
}

/** The path under which an answer is stored: files hold no drafts, and single weights are not reduced. @param {string} path */
export function canonicalPath(path) {
  const [name, options = ""] = path.split("?");
  const params = new URLSearchParams(options);
  params.delete("exact");
  if (name.startsWith("tile/") && name.split("/")[4] === "0") params.delete("reduce");
  return String(params) ? `${name}?${params}` : name;
}
