// The numbers of PyTorch's generator on a CPU, so that a seed draws the same lesson here and in Python.
// Matsumoto and Nishimura 1998, MT19937; from bits to numbers as ATen/native/cpu/DistributionTemplates.h does.

const [LENGTH, SHIFT] = [624, 397];

export class TorchRandom {
  #state = new Uint32Array(LENGTH);
  #at = LENGTH;
  /** The second of a pair of normal numbers. @type {number | null} */
  #spare = null;

  /** @param {number} seed a whole number from 0 to 2³² − 1 */
  constructor(seed) {
    this.#state[0] = seed;
    for (let i = 1; i < LENGTH; i++) {
      const last = this.#state[i - 1];
      this.#state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  #bits() {
    const state = this.#state;
    if (this.#at === LENGTH) {
      for (let i = 0; i < LENGTH; i++) {
        const mixed = (state[i] & 0x80000000) | (state[(i + 1) % LENGTH] & 0x7fffffff);
        state[i] = state[(i + SHIFT) % LENGTH] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
      }
      this.#at = 0;
    }
    let bits = state[this.#at++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  #float() {
    return (this.#bits() & 0xffffff) / 2 ** 24;
  }

  #double() {
    const [high, low] = [this.#bits(), this.#bits()];
    return ((high & 0x1fffff) * 2 ** 32 + low) / 2 ** 53;
  }

  /** torch.rand, or uniform_(from, to). @param {number} rows @param {number} columns @returns {number[][]} */
  uniform(rows, columns, from = 0, to = 1) {
    return shaped(Array.from({ length: rows * columns }, () => Math.fround(this.#float() * (to - from) + from)), columns);
  }

  /** torch.randn. @param {number} rows @param {number} columns */
  normal(rows, columns) {
    const count = rows * columns;
    if (count < 16) return shaped(Array.from({ length: count }, () => Math.fround(this.#one())), columns);
    const numbers = Array.from({ length: count }, () => this.#float());
    for (let first = 0; first + 16 <= count; first += 16) pairs(numbers, first);
    if (count % 16) {
      for (let i = count - 16; i < count; i++) numbers[i] = this.#float();
      pairs(numbers, count - 16);
    }
    return shaped(numbers, columns);
  }

  #one() {
    const spare = this.#spare;
    this.#spare = null;
    if (spare !== null) return spare;
    const [angle, far] = [2 * Math.PI * this.#double(), this.#double()];
    const radius = Math.sqrt(-2 * Math.log1p(-far));
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** The weights of torch.nn.Linear(d_in, d_out, bias=False), transposed: (d_in, d_out). @param {number} dIn @param {number} dOut */
  linear(dIn, dOut) {
    const bound = 1 / Math.sqrt(dIn);
    const weight = this.uniform(dOut, dIn, -bound, bound);
    return Array.from({ length: dIn }, (_, i) => weight.map((row) => row[i]));
  }
}

/** Sixteen uniform numbers become normal ones, in pairs (Box and Muller 1958). */
function pairs(numbers, first) {
  for (let i = first; i < first + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - numbers[i]));
    const angle = 2 * Math.PI * numbers[i + 8];
    numbers[i] = Math.fround(radius * Math.cos(angle));
    numbers[i + 8] = Math.fround(radius * Math.sin(angle));
  }
}

function shaped(numbers, columns) {
  return Array.from({ length: numbers.length / columns }, (_, i) => numbers.slice(i * columns, (i + 1) * columns));
}
