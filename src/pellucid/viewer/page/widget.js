// The page in a notebook: an anywidget (https://anywidget.dev), asked through the kernel.
import { ofItsOwn } from "./address.js";
import { mount } from "./page.js";
import "./main.js";

export default {
  async render({ model, el }) {
    const waiting = new Map();
    let last = 0;
    const ask = (path, signal) => new Promise((done, failed) => {
      const number = ++last;
      waiting.set(number, { done, failed });
      signal?.addEventListener("abort", () => {
        waiting.delete(number);
        failed(new DOMException("nobody waits any more", "AbortError"));
      });
      model.send({ number, path });
    });
    const hear = ({ number, json, shape, exact, error }, buffers) => {
      const asked = waiting.get(number);
      waiting.delete(number);
      if (!asked) return;
      if (error !== undefined) asked.failed(new Error(error));
      else if (shape) asked.done({ values: new Float32Array(buffers[0].buffer.slice(buffers[0].byteOffset, buffers[0].byteOffset + buffers[0].byteLength)), shape, isExact: exact });
      else asked.done(json);
    };
    model.on("msg:custom", hear);
    const style = document.createElement("style");
    style.textContent = model.get("style");
    const root = document.createElement("div");
    root.style.height = `${model.get("height")}px`;
    (el.shadowRoot ?? el.attachShadow({ mode: "open" })).replaceChildren(style, root);
    await mount(root, { json: ask, numbers: ask }, ofItsOwn(model.get("address")));
    return () => model.off("msg:custom", hear);
  },
};
