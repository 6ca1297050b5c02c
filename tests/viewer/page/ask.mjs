// Calls functions of a module without imports: {module, calls: [[name, ...arguments], ...]} on stdin, their answers on stdout.
// A call [name, argument, {then: [...]}] calls a function of what the first gives. Infinities come out as null.
import { readFileSync } from "node:fs";

const { module, calls } = JSON.parse(readFileSync(0, "utf8"));
const found = await import(`data:text/javascript,${encodeURIComponent(readFileSync(module, "utf8"))}`);
const answers = calls.map(([name, ...given]) => {
  const then = given.at(-1)?.then;
  if (!then) return found[name](...given);
  const [inner, ...more] = then;
  return found[name](...given.slice(0, -1))[inner](...more);
});
process.stdout.write(JSON.stringify(answers));
