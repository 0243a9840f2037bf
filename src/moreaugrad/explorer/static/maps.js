// Maps in the browser: thresholds, ranks and colours. Arrays are flat, of the shape [C, H, W].

/** The messages of a stream: for each its header, and its bytes as one buffer. */
export async function* messages(reader) {
  let left = new Uint8Array(0);
  for (;;) {
    while (left.length >= 8) {
      const [head, body] = new Uint32Array(left.slice(0, 8).buffer);
      if (left.length < 8 + head + body) break;
      yield [JSON.parse(new TextDecoder().decode(left.subarray(8, 8 + head))),
             left.slice(8 + head, 8 + head + body).buffer];
      left = left.slice(8 + head + body);
    }
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(left.length + value.length);
    joined.set(left);
    joined.set(value, left.length);
    left = joined;
  }
}

/** Which group each place [H, W] is in, and the number of groups. */
function groups([, height, width], [tall, wide]) {
  const across = Math.ceil(width / wide), of = new Int32Array(height * width);
  for (let i = 0; i < of.length; i++)
    of[i] = Math.floor(Math.floor(i / width) / tall) * across + Math.floor((i % width) / wide);
  return [of, across * Math.ceil(height / tall)];
}

function norms(gradient, shape, size) {
  const [of, count] = groups(shape, size), found = new Float32Array(count);
  gradient.forEach((v, i) => { found[of[i % of.length]] += v * v; });
  return [of, found.map(Math.sqrt)];
}

/** What thresholds compare with: magnitudes of entries or groups, in rising order. */
export function magnitudes(gradient, shape, rule) {
  const found = rule.kind === "group" ? norms(gradient, shape, rule.size)[1] : gradient.map(Math.abs);
  return found.sort();
}

/** The smallest weight that sets this fraction of them to zero; one is kept unless it is 1. */
export function weight(sorted, sparsity) {
  const zeros = sparsity === 1 ? sorted.length
    : Math.min(sorted.length - 1, Math.ceil(sparsity * sorted.length - 1e-9));
  return zeros > 0 ? sorted[zeros - 1] * (1 + 5e-7) : 0;
}

/** The map of an averaged gradient. */
export function thresholded(gradient, shape, rule, eta) {
  if (rule.kind === "keep") return gradient.map(v => Math.abs(v) > eta ? v : 0);
  if (rule.kind === "soft") return gradient.map(v => Math.sign(v) * Math.max(Math.abs(v) - eta, 0));
  const [of, found] = norms(gradient, shape, rule.size);
  const shrunk = found.map(n => n > eta ? 1 - eta / n : 0);
  return gradient.map((v, i) => v * shrunk[of[i % of.length]]);
}

/** Over channels: the sum [H, W], or that of magnitudes. */
export function reduced(map, [, height, width], signed) {
  const found = new Float32Array(height * width);
  map.forEach((v, i) => { found[i % found.length] += signed ? v : Math.abs(v); });
  return found;
}

/** Levels from -1 to 1: over the 99th percentile of the magnitudes, or the largest. */
export function levels(values) {
  const sorted = values.map(Math.abs).sort(), most = sorted[sorted.length - 1];
  const high = sorted[Math.floor(.99 * (sorted.length - 1))] || most || 1;
  return values.map(v => Math.max(-1, Math.min(1, v / high)));
}

/** The place of each value among all, from 0 for the largest magnitude. */
export function ranks(values) {
  const order = Uint32Array.from(values.keys()), size = values.map(Math.abs);
  order.sort((a, b) => size[b] - size[a]);
  const found = new Uint32Array(values.length);
  order.forEach((place, rank) => { found[place] = rank; });
  return found;
}

/** The rank of each place when regions of size x size are replaced one after the other. */
export function regions(values, [, height, width], size) {
  const [of, count] = groups([0, height, width], [size, size]), sums = new Float32Array(count);
  values.forEach((v, i) => { sums[of[i]] += Math.abs(v); });
  const found = ranks(sums);
  return Uint32Array.from(of, group => found[group] / count * values.length);
}

/** RGBA of a map in one of the views; what lies below shows where it is transparent. */
export function painted(map, shape, view, palettes) {
  const signed = view === "signed", level = levels(reduced(map, shape, signed));
  const colours = palettes[signed ? "blue-white-orange" : "magma"], top = colours.length - 1;
  const pixels = new Uint8ClampedArray(4 * level.length);
  level.forEach((v, i) => {
    const at = view === "overlay" ? .35 + .65 * v : signed ? (v + 1) / 2 : v;
    const [r, g, b] = view === "photo" || view === "masked" ? [128, 128, 128] : colours[Math.round(at * top)];
    const alpha = { overlay: v && .25 + .75 * v, photo: 0, masked: v ? 0 : 1 }[view] ?? 1;
    pixels.set([r, g, b, 255 * alpha], 4 * i);
  });
  return pixels;
}
