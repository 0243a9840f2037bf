// Maps in the browser: thresholds, ranks and colours. Arrays are flat, of the shape [C, H, W].

/** The messages of a stream: for each its header, and its bytes as one buffer. */
export async function* messages(reader) {
  let left = new Uint8Array(0);
  try {
    for (let done, value; !done; { done, value } = await reader.read()) {
      left = new Uint8Array(await new Blob([left, value ?? ""]).arrayBuffer());
      while (left.length >= 8) {
        const [head, body] = new Uint32Array(left.slice(0, 8).buffer), end = 8 + head + body;
        if (left.length < end) break;
        yield [JSON.parse(new TextDecoder().decode(left.subarray(8, 8 + head))), left.slice(8 + head, end).buffer];
        left = left.slice(end);
      }
    }
  } finally { reader.cancel().catch(() => null); }
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
  const map = new Float32Array(gradient.length), size = shape[1] * shape[2];
  const [of, found] = rule.kind === "group" ? norms(gradient, shape, rule.size) : [];
  for (let i = 0; i < map.length; i++) {
    const v = gradient[i], n = of ? found[of[i % size]] : Math.abs(v);
    if (n > eta) map[i] = rule.kind === "keep" ? v : v * (1 - eta / n);
  }
  return map;
}

/** Over channels: the sum [H, W], or that of magnitudes. */
export function reduced(map, [channels, height, width], signed) {
  const size = height * width, found = new Float32Array(size);
  for (let c = 0, at = 0; c < channels; c++)
    for (let i = 0; i < size; i++, at++) found[i] += signed ? map[at] : Math.abs(map[at]);
  return found;
}

/** The 99th percentile of magnitudes, or the largest where that is zero. */
function high(values) {
  const sorted = values.map(Math.abs).sort();
  return sorted[Math.floor(.99 * (sorted.length - 1))] || sorted[sorted.length - 1] || 1;
}

/** The place of each value among all, from 0 for the largest magnitude. */
export function ranks(values) {
  const order = Uint32Array.from(values.keys()), size = values.map(Math.abs);
  order.sort((a, b) => size[b] - size[a]);
  const found = new Uint32Array(values.length);
  order.forEach((place, rank) => { found[place] = rank; });
  return found;
}

/** The fraction of their largest tenths that two rankings have in common. */
export function overlap(one, other) {
  const most = one.length / 10;
  return one.filter((rank, i) => rank < most && other[i] < most).length / Math.ceil(most);
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
  const signed = view === "signed", values = reduced(map, shape, signed), scale = 1 / high(values);
  const colours = palettes[signed ? "blue-white-orange" : "magma"], top = colours.length - 1;
  const pixels = new Uint8ClampedArray(4 * values.length), plain = view === "photo" || view === "masked";
  for (let i = 0; i < values.length; i++) {
    const v = Math.max(-1, Math.min(1, scale * values[i]));
    const at = view === "overlay" ? .35 + .65 * v : signed ? (v + 1) / 2 : v;
    const colour = plain ? [128, 128, 128] : colours[Math.round(at * top)];
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = colour[c];
    pixels[4 * i + 3] = view === "overlay" ? v && 64 + 191 * v : view === "photo" || (view === "masked" && v) ? 0 : 255;
  }
  return pixels;
}
