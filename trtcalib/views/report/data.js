// What stands packed in the page.

async function unpack(id) {
  const element = byId(id);
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const unpackText = async (id) => new TextDecoder().decode(await unpack(id));

/** Undo differences, modulo the array's width. */
function summed(codes) {
  for (let i = 1; i < codes.length; i += 1) codes[i] += codes[i - 1];
  return codes;
}

const HEADER_BYTES = 40;

/** The curves of a group of histograms; format: trtcalib/views/report_curves.py. */
function unpackCurves(buffer, page) {
  const view = new DataView(buffer);
  const headers = [];
  let at = 4;
  for (let i = 0; i < view.getUint32(0, true); i += 1, at += HEADER_BYTES) {
    const whole = [0, 4, 8, 12].map((offset) => view.getUint32(at + offset, true));
    const real = [16, 24, 32].map((offset) => view.getFloat64(at + offset, true));
    headers.push([...whole, ...real]);
  }
  const counts = headers.map(([bins]) => {
    at += bins;
    return summed(new Uint8Array(buffer.slice(at - bins, at)));
  });
  const low = new Uint8Array(buffer, at);
  const kept = headers.reduce((sum, header) => sum + header[3], 0);
  let from = 0;
  return headers.map(([, candidates, chosen, size, top, lowest, highest], i) => {
    const codes = new Uint16Array(size);
    for (let j = 0; j < size; j += 1) codes[j] = low[from + j] | (low[kept + from + j] << 8);
    from += size;
    return {
      counts: countsOf(counts[i], top, page),
      divergences: divergencesOf(summed(codes), candidates, chosen, lowest, highest, page),
    };
  });
}

function countsOf(codes, top, page) {
  return Float64Array.from(codes, (code) => (code === 0 ? 0 : Math.exp(((code - 1) / page.countSteps) * top)));
}

/** [{at, kl}] of the candidates that are kept and allowed; at counts from the first candidate. */
function divergencesOf(codes, candidates, chosen, lowest, highest, page) {
  const points = [];
  let next = 0;
  for (let at = 0; at < candidates; at += 1) {
    if (at % page.klStride !== 0 && Math.abs(at - chosen) > page.klNear) continue;
    const code = codes[next];
    next += 1;
    if (code === 0) continue;
    points.push({ at, kl: code === 1 ? 0 : Math.exp(lowest + ((code - 2) / page.klSteps) * (highest - lowest)) });
  }
  return points;
}

const groups = new Map();

/** The curves of one histogram of a set; a group is unpacked once. */
async function curvesOf(set, histogram, page) {
  const key = `curves-${set}-${Math.floor(histogram / page.group)}`;
  if (!groups.has(key)) groups.set(key, unpack(key).then((buffer) => unpackCurves(buffer, page)));
  return (await groups.get(key))[histogram % page.group];
}
