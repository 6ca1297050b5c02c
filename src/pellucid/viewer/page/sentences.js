// Sentences about the numbers of one query: those of the Python lessons, for numbers that change.
// Text out of numbers: it knows nothing of pages.

const LEFTWARDS = /[\p{sc=Hebrew}\p{sc=Arabic}\p{sc=Syriac}\p{sc=Thaana}\p{sc=Nko}\p{sc=Adlam}]/u;

/** Whole percents, never rounded to 0 or 100 when it is neither. @param {number} part */
export function percents(part) {
  if (part > 0 && part < 0.005) return "<1\u00a0%";
  if (part >= 0.995 && part < 1) return ">99\u00a0%";
  return `${(100 * part).toFixed(0)}\u00a0%`;
}

/** A weight in a table: its digits, and never a power of ten. @param {number} part */
export function weight(part) {
  if (part === 0) return "0 %";
  if (part < 0.001) return "<0.1 %";
  return `${part < 0.1 ? (100 * part).toPrecision(2) : (100 * part).toFixed(1)} %`;
}

/** "a", "a and b", "a, b and c". @param {string[]} parts */
function listing(parts) {
  return parts.length === 1 ? parts[0] : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

/** @param {number} number @param {string} noun */
export function count(number, noun, several = `${noun}s`) {
  return `${number} ${number === 1 ? noun : several}`;
}

/** A number with so many decimals, a true minus, and no minus zero. @param {number} number */
export function decimal(number, decimals = 2) {
  if (Number.isNaN(number)) return "–";
  if (!Number.isFinite(number)) return number < 0 ? "−∞" : "∞";
  const text = Math.abs(number) < 1e6 ? number.toFixed(decimals) : number.toExponential(decimals);
  return text.replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** A factor, with four digits. @param {number} number */
export function factor(number) {
  return String(Number(number.toPrecision(4))).replace("-", "−");
}

/** A word; if it is written leftwards, so that the numbers behind it stay behind it. @param {string} word */
export function isolate(word) {
  return LEFTWARDS.test(word) ? `\u2068${word}\u2069` : word;
}

/** A token in quotes, with its position where the word stands there more than once. @param {string[]} tokens @param {number} position */
export function quote(tokens, position, first = 0) {
  const isTwice = tokens.indexOf(tokens[position]) !== tokens.lastIndexOf(tokens[position]);
  return `'${isolate(tokens[position])}'${isTwice ? ` (${first + position})` : ""}`;
}

/**
 * Told from the place of one query.
 * @param {{name: string, own: number|null, names: string[]}} who its name, which of the keys it is, and the names of the keys
 */
export function sentencesOf({ name, own, names }) {
  /** The (at most three) largest weights worth a word, largest first. @param {number[]} weights */
  function strongest(weights) {
    const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    const worth = order.filter((key) => weights[key] >= 0.05);
    return worth.length ? worth : order.slice(0, 1);
  }

  /** What is not listed, and what is no key: worth a word each where it is much. @param {number[]} weights @param {number[]} listed @param {string} word @param {[string, number][]} more */
  function others(weights, listed, word, more) {
    const rest = weights.reduce((sum, weight, key) => (listed.includes(key) ? sum : sum + weight), 0);
    return /** @type {[string, number][]} */ ([["the rest", rest], ...more]).filter(([, part]) => part >= 0.01).map(([what, part]) => `${percents(part)} ${word} ${what}`);
  }

  return {
    /** The best key is one that the query may see. @param {number[]} scores @param {boolean[] | null} visible */
    score(scores, visible = null) {
      const isSeen = (key) => visible === null || visible[key];
      const seen = [...scores.keys()].filter(isSeen);
      if (!seen.length) return `The query of ${name} may see no key at all.`;
      const best = seen.reduce((most, key) => (scores[key] > scores[most] ? key : most));
      const among = seen.length < scores.length ? "Among the keys it may see, t" : "T";
      return `${among}he query of ${name} fits ${best === own ? "its own key" : `the key of ${names[best]}`} best: their score is ${decimal(scores[best])}.`;
    },

    /** @param {number[]} scores @param {number} factor @param {number} keyDim */
    scale(scores, factor, keyDim) {
      const farthest = scores.reduce((most, one) => (Math.abs(one) > Math.abs(most) ? one : most));
      const isRoot = Math.abs(factor * Math.sqrt(keyDim) - 1) < 1e-6;
      const how = isRoot
        ? `Divided by √${keyDim} = ${Math.sqrt(keyDim).toFixed(2)}, so that scores do not grow with how many numbers a vector has`
        : `Multiplied by ${Number(factor.toPrecision(4))}`;
      if (factor === 1) return `Multiplied by 1, the scores stay as they are; that of ${name} that is farthest from 0 is ${decimal(farthest)}.`;
      return `${how}: the score of ${name} that is farthest from 0 goes from ${decimal(farthest)} to ${decimal(farthest * factor)}.`;
    },

    /** @param {number[]} masked */
    mask(masked) {
      const hidden = masked.filter((one) => one === -Infinity).length;
      if (hidden === 0) return `Nothing is hidden: ${name} sees all ${count(masked.length, "token")}.`;
      if (hidden === masked.length) return `Every score becomes −∞: ${name} sees nothing, and takes nothing along.`;
      return `${hidden} of the ${count(masked.length, "score")} ${hidden === 1 ? "becomes" : "become"} −∞: ${name} does not see what is hidden, and its weight will be 0.`;
    },

    /** @param {number[]} weights @param {[string, number][]} more what has a weight and is no key */
    softmax(weights, more = []) {
      if (![...weights, ...more.map(([, part]) => part)].some((weight) => weight > 0)) return `${name} gives its attention to no token.`;
      const listed = strongest(weights).filter((key) => key !== own);
      if (own !== null) listed.unshift(own);
      const parts = listed.map((key) => `${percents(weights[key])} ${key === own ? "of its attention to itself" : `to ${names[key]}`}`);
      return `${name} gives ${listing([...parts, ...others(weights, listed, "to", more)])}.`;
    },

    /** @param {number[]} weights @param {number[]} context */
    mix(weights, context, more = []) {
      const listed = strongest(weights);
      const parts = listed.map((key) => `${percents(weights[key])} ${key === own ? "its own" : `that of ${names[key]}`}`);
      const numbers = context.slice(0, 3).map((one) => decimal(one)).join(", ");
      const whole = listing([...parts, ...others(weights, listed, "those of", more)]);
      return `The context of ${name} is a mix of values: ${whole}: (${numbers}${context.length > 3 ? ", …" : ""}).`;
    },
  };
}

/** About all queries, keys or values: what they do, and whose is longest. @param {"query" | "key" | "value"} role @param {number[][]} numbers @param {string[]} names */
export function vectors(role, numbers, names) {
  const does = { query: "asks for something", key: "says what it offers", value: "carries what it hands on" }[role];
  const lengths = numbers.map((row) => Math.hypot(...row));
  const longest = lengths.indexOf(Math.max(...lengths));
  return `Each token ${does}, in ${count(numbers[0].length, "number")}; the longest ${role} is that of ${names[longest]}, of length ${decimal(lengths[longest])}.`;
}
