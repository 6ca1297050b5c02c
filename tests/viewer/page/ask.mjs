// Calls functions of modules without imports. Each line of stdin is {module, calls: [[name, ...arguments], ...]},
// and is answered by a line: {answers} or {error}. A call [name, argument, {then: [...]}] calls a function of what
// the first gives. Infinities come out as null.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const modules = {};

async function answer({ module, calls }) {
  modules[module] ??= await import(`data:text/javascript,${encodeURIComponent(readFileSync(module, "utf8"))}`);
  return calls.map(([name, ...given]) => {
    const then = given.at(-1)?.then;
    if (!then) return modules[module][name](...given);
    const [inner, ...more] = then;
    return modules[module][name](...given.slice(0, -1))[inner](...more);
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const told = await answer(JSON.parse(line)).then((answers) => ({ answers }), (error) => ({ error: error.stack }));
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
