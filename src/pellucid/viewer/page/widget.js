// The page in a notebook: an anywidget (https://anywidget.dev), which answers through the kernel.
import { inMemoryUrl } from "./url_state.js";
import { mount } from "./page.js";
import "./main.js"; // does nothing in a notebook; in a file, this module is the whole page

export default {
  render({ model, el }) {
    // All views of all windows hear the answers to each.
    const own = Math.random().toString(36).slice(2);
    const waiting = new Map();
    let last = 0;
    const ask = (path, signal) => new Promise((done, failed) => {
      signal?.throwIfAborted();
      const number = `${own}.${++last}`;
      waiting.set(number, { done, failed });
      signal?.addEventListener("abort", () => {
        if (waiting.delete(number)) model.send({ drop: number });
        failed(new DOMException("the request was cancelled", "AbortError"));
      });
      model.send({ number, path });
    });
    const hear = ({ number, json, shape, exact, error }, [buffer]) => {
      const request = waiting.get(number);
      if (!waiting.delete(number)) return;
      if (error !== undefined) request.failed(new Error(error));
      else if (shape) request.done({ values: floats(buffer), shape, isExact: exact });
      else request.done(json);
    };
    model.on("msg:custom", hear);
    const style = document.createElement("style");
    style.textContent = model.get("css");
    const root = document.createElement("div");
    root.style.height = `${model.get("height")}px`;
    el.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes keys that move about the map for its own
    (el.shadowRoot ?? el.attachShadow({ mode: "open" })).replaceChildren(style, root);
    const code = async () => ({ script: model.get("_esm"), style: model.get("css"), file: model.get("file") });
    const shown = new AbortController();
    mount(root, { json: ask, numbers: ask, code }, inMemoryUrl(model.get("address")), undefined, shown.signal);
    return () => {
      shown.abort();
      model.off("msg:custom", hear);
    };
  },
};

/** A copy: what comes may begin anywhere in its memory. */
function floats({ buffer, byteOffset, byteLength }) {
  return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
}
