// A number with its sign, as himac_lite.plots.signed sets it: +1.73, −0.58, 0.00. An exact half goes to the even digit,
// as in Python, where toFixed takes the larger one; exact in binary are only odd multiples of 2^-(digits + 1).
const fixed = (x, digits) => ((x * 2 ** (digits + 1)) % 2 === 1 ? (2 * Math.round((x * 10 ** digits) / 2)) / 10 ** digits : x).toFixed(digits);
const signed = (x, digits = 2) => {
  const text = fixed(Math.abs(x), digits);
  return Number(text) ? (x > 0 ? "+" : "−") + text : text;
};
