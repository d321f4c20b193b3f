// Images to network input, and network output to detections: what fcos/inference/detector.py, fcos/decode.py and
// fcos/boxes.py do, in the same order and with the same rules. Used by the page and by its worker.
"use strict";
const Fcos = (() => {
  const f = Math.fround; // NumPy's and torch's numbers here have 32 bits
  // ------------------------------------------------------------------ pre-processing

  const halfEven = (x) => {
    const low = Math.floor(x);
    const rest = x - low;
    return rest < 0.5 ? low : rest > 0.5 ? low + 1 : low % 2 === 0 ? low : low + 1;
  };

  // [height, width] after scaling to `size`, at most `max_size`; the rules of fcos.data.images.reading.resized_shape.
  function resizedShape(size, data) {
    const low = Math.min(...size), high = Math.max(...size);
    const short = data.size, longest = data.max_size;
    let sides;
    if (data.round === "nearest") {
      const [over, under] = short * high <= longest * low ? [short, low] : [longest, high];
      sides = size.map((side) => Math.floor((2 * side * over + under) / (2 * under)));
    } else if (data.round === "short-exact") {
      const first = (high / low) * short > longest ? halfEven((longest * low) / high) : short;
      sides = size.map((side) => (side === low ? first : Math.trunc((first * side) / low)));
    } else if (data.round === "two-step") {
      const scaled = size.map((side) => (side === low ? short : (short / low) * side));
      const most = Math.max(...scaled);
      const again = most > longest ? longest / most : 1;
      sides = scaled.map((side) => Math.trunc(side * again + 0.5));
    } else {
      const factor = Math.min(short / low, longest / high);
      sides = size.map((side) => Math.trunc(side * factor + (data.round === "half-up" ? 0.5 : 0)));
    }
    return sides.map((side) => Math.max(1, side));
  }

  function fitInside(size, most) {
    const ratio = Math.min(most[0] / size[0], most[1] / size[1]);
    return size.map((side, k) => Math.min(Math.max(halfEven(side * ratio), 1), most[k]));
  }

  // For each target pixel of an axis the source pixels it takes and their weights, flat: starts, sources, weights.
  function axis(from, to, kind) {
    const starts = new Int32Array(to + 1), sources = [], weights = [];
    const scale = from / to;
    for (let i = 0; i < to; i++) {
      starts[i] = sources.length;
      if (from === to) {
        sources.push(i);
        weights.push(1);
      } else if (kind === "area") {
        const begin = i * scale, end = begin + scale;
        const width = Math.min(scale, from - begin);
        const last = Math.min(Math.floor(end), from - 1);
        const first = Math.min(Math.ceil(begin), last);
        if (first - begin > 1e-3) {
          sources.push(first - 1);
          weights.push((first - begin) / width);
        }
        for (let s = first; s < last; s++) {
          sources.push(s);
          weights.push(1 / width);
        }
        if (end - last > 1e-3) {
          sources.push(last);
          weights.push(Math.min(end - last, 1, width) / width);
        }
      } else if (kind === "pil") {
        const spread = Math.max(scale, 1), centre = (i + 0.5) * scale;
        const first = Math.max(Math.trunc(centre - spread + 0.5), 0);
        const last = Math.min(Math.trunc(centre + spread + 0.5), from);
        let sum = 0;
        const at = weights.length;
        for (let s = first; s < last; s++) {
          const weight = Math.max(1 - Math.abs((s - centre + 0.5) / spread), 0);
          sources.push(s);
          weights.push(weight);
          sum += weight;
        }
        for (let k = at; k < weights.length; k++) weights[k] /= sum;
      } else {
        const place = (i + 0.5) * scale - 0.5;
        let s = Math.floor(place), part = place - s;
        if (s < 0) [s, part] = [0, 0];
        if (s >= from - 1) [s, part] = [from - 1, 0];
        sources.push(s, Math.min(s + 1, from - 1));
        weights.push(1 - part, part);
      }
    }
    starts[to] = sources.length;
    return { starts, sources: Int32Array.from(sources), weights: Float32Array.from(weights) };
  }

  // RGBA bytes of (height, width) -> RGB values [h * w * 3] of `shape`, bytes or, for "torch", floats. The sums are
  // rounded as OpenCV and Pillow do, so that the bytes are theirs: OpenCV interpolates in whole numbers of 1/2048.
  function resize(rgba, [height, width], [rows, columns], resample) {
    const shrinks = rows <= height && columns <= width;
    const kind = resample === "auto" ? (shrinks ? "area" : "linear") : resample;
    const across = axis(width, columns, kind), down = axis(height, rows, kind);
    const fixed = kind === "linear" && !(rows === height && columns === width);
    if (fixed) for (const { weights } of [across, down]) for (let i = 0; i < weights.length; i++) weights[i] = halfEven(weights[i] * 2048);
    const out = kind === "torch" ? new Float32Array(rows * columns * 3) : new Uint8ClampedArray(rows * columns * 3);
    // each source row is brought to the target's width once and kept while it is needed
    const kept = new Map();
    const narrow = (y) => {
      let line = kept.get(y);
      if (line) return line;
      line = new Float32Array(columns * 3);
      const base = y * width * 4;
      for (let x = 0; x < columns; x++) {
        let r = 0, g = 0, b = 0;
        for (let k = across.starts[x]; k < across.starts[x + 1]; k++) {
          const at = base + across.sources[k] * 4, weight = across.weights[k];
          r = f(r + f(rgba[at] * weight));
          g = f(g + f(rgba[at + 1] * weight));
          b = f(b + f(rgba[at + 2] * weight));
        }
        line[3 * x] = r;
        line[3 * x + 1] = g;
        line[3 * x + 2] = b;
      }
      if (kind === "pil") for (let i = 0; i < line.length; i++) line[i] = Math.floor(line[i] + 0.5);
      kept.set(y, line);
      return line;
    };
    const sum = new Float32Array(columns * 3);
    for (let y = 0; y < rows; y++) {
      sum.fill(0);
      const first = down.sources[down.starts[y]];
      for (const old of kept.keys()) if (old < first) kept.delete(old);
      for (let k = down.starts[y]; k < down.starts[y + 1]; k++) {
        const line = narrow(down.sources[k]), weight = down.weights[k];
        if (fixed) for (let i = 0; i < sum.length; i++) sum[i] += (weight * (line[i] >> 4)) >> 16;
        else for (let i = 0; i < sum.length; i++) sum[i] += f(line[i] * weight);
      }
      const base = y * columns * 3;
      if (fixed) for (let i = 0; i < sum.length; i++) out[base + i] = (sum[i] + 2) >> 2;
      else if (kind === "pil") for (let i = 0; i < sum.length; i++) out[base + i] = Math.floor(sum[i] + 0.5);
      else for (let i = 0; i < sum.length; i++) out[base + i] = sum[i]; // a clamped array rounds halves to even
    }
    return out;
  }

  // image {data: RGBA, width, height} -> {input: [3, height, width] flat, height, width, size: before padding}.
  function prepare(image, about) {
    const data = about.config.data, fixed = about.graph.size;
    const from = [image.height, image.width];
    let shape = resizedShape(from, data);
    if (fixed && (shape[0] > fixed[0] || shape[1] > fixed[1])) shape = fitInside(from, fixed);
    const floats = data.padding === "exact" || data.resample === "torch";
    const pixels = resize(image.data, from, shape, data.resample);
    const [height, width] = fixed || shape.map((side) => Math.ceil(side / data.divisor) * data.divisor);
    const input = floats ? new Float32Array(3 * height * width) : new Uint8Array(3 * height * width);
    for (let c = 0; c < 3; c++) {
      const plane = input.subarray(c * height * width, (c + 1) * height * width);
      const mean = about.config.model.mean[c];
      plane.fill(floats ? mean : halfEven(mean));
      for (let y = 0; y < shape[0]; y++) {
        let at = y * shape[1] * 3 + c;
        for (let x = 0; x < shape[1]; x++, at += 3) plane[y * width + x] = pixels[at];
      }
    }
    return { input, height, width, size: shape };
  }

  // ------------------------------------------------------------------ points

  // The grids of an input of (height, width): {start, rows, columns, stride, x0, y0, stepX, stepY}.
  function grids(height, width, model) {
    let start = 0;
    return model.strides.map((stride) => {
      const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride);
      const own = model.point_spacing === "stride";
      const stepX = own ? stride : Math.floor(width / columns), stepY = own ? stride : Math.floor(height / rows);
      const offset = model.point_offset;
      const grid = { start, rows, columns, stride, stepX, stepY, x0: offset * stepX, y0: offset * stepY };
      start += rows * columns;
      return grid;
    });
  }

  // ------------------------------------------------------------------ decoding

  const sigmoid = (x) => f(1 / (1 + Math.exp(-x)));
  const logit = (p) => (p > 0 ? Math.log(p / (1 - p)) : -Infinity);

  function scoreOf(probability, centerness, cfg) {
    if (cfg.score === "class") return probability;
    if (cfg.score === "product") return f(probability * centerness);
    if (cfg.score === "sqrt") return f(Math.sqrt(f(probability * centerness)));
    return f(f(probability ** cfg.power) * f(centerness ** (1 - cfg.power)));
  }

  // Class probability below which no centerness can lift a candidate over the threshold.
  function leastProbability(cfg) {
    if (cfg.threshold_on === "class" || cfg.score === "class" || cfg.score === "product") return cfg.threshold;
    if (cfg.score === "sqrt") return cfg.threshold ** 2;
    return cfg.power > 0 ? cfg.threshold ** (1 / cfg.power) : 0;
  }

  function select(said, levels, cfg) {
    const classes = said.logits.length / said.centerness.length;
    const least = logit(leastProbability(cfg)) - 1e-3, threshold = f(cfg.threshold);
    const all = [];
    for (const grid of levels) {
      let found = [];
      for (let cell = 0; cell < grid.rows * grid.columns; cell++) {
        const point = grid.start + cell;
        for (let c = 0; c < classes; c++) {
          const l = said.logits[point * classes + c];
          if (!(l > least)) continue;
          const probability = sigmoid(l), centerness = sigmoid(said.centerness[point]);
          const score = scoreOf(probability, centerness, cfg);
          if (!((cfg.threshold_on === "class" ? probability : score) > threshold)) continue;
          const x = f(f((cell % grid.columns) * grid.stepX) + grid.x0);
          const y = f(f(Math.floor(cell / grid.columns) * grid.stepY) + grid.y0);
          const distances = Array.from(said.distances.subarray(4 * point, 4 * point + 4));
          const box = [f(x - distances[0]), f(y - distances[1]), f(x + distances[2]), f(y + distances[3])];
          found.push({ point, class: c, score, probability, centerness, location: [x, y], distances, box, grid });
        }
      }
      if (found.length > cfg.topk) {
        const key = cfg.topk_by === "score" ? "score" : "probability";
        found = found.sort((a, b) => b[key] - a[key]).slice(0, cfg.topk);
      }
      all.push(...found);
    }
    return all;
  }

  const solid = (box) => box[2] > box[0] && box[3] > box[1];

  function clip(box, [height, width], margin) {
    const within = (v, most) => Math.min(Math.max(v, 0), most - margin);
    return [within(box[0], width), within(box[1], height), within(box[2], width), within(box[3], height)];
  }

  function iou(a, b, more) {
    const w = Math.min(a[2], b[2]) + more - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) + more - Math.max(a[1], b[1]);
    if (w <= 0 || h <= 0) return 0;
    const area = (box) => f(f(box[2] + more - box[0]) * f(box[3] + more - box[1]));
    const both = f(f(w) * f(h));
    return f(both / f(f(area(a) + area(b)) - both));
  }

  // Kept candidates, best first; each dropped one has `by`, the candidate that silenced it.
  function nms(candidates, cfg) {
    if (cfg.nms.startsWith("soft")) return softNms(candidates, cfg);
    const order = candidates.map((c, i) => i).sort((i, j) => candidates[j].score - candidates[i].score || i - j);
    const limit = cfg.nms_rule === "mmcv" ? f(cfg.nms_iou) : cfg.nms_iou;
    const more = cfg.nms_plus_one ? 1 : 0;
    const kept = [];
    for (const i of order) {
      const one = candidates[i];
      const by = cfg.nms === "none" ? undefined : kept.find(
        (k) => (cfg.nms === "agnostic" || k.class === one.class) && iou(k.box, one.box, more) > limit,
      );
      if (by) one.by = by;
      else kept.push(one);
    }
    return kept.slice(0, cfg.max_detections);
  }

  function softNms(candidates, cfg) {
    const left = candidates.map((c) => c.score), kept = [];
    const more = cfg.nms_plus_one ? 1 : 0;
    for (let round = 0; round < Math.min(candidates.length, cfg.max_detections); round++) {
      let best = 0;
      for (let i = 1; i < left.length; i++) if (left[i] > left[best]) best = i;
      if (left[best] <= cfg.threshold * 0.1) break;
      kept.push({ ...candidates[best], score: left[best] });
      for (let i = 0; i < left.length; i++) {
        if (candidates[i].class !== candidates[best].class) continue;
        const overlap = iou(candidates[best].box, candidates[i].box, more);
        const linear = overlap > cfg.nms_iou ? 1 - overlap : 1;
        left[i] = f(left[i] * (cfg.nms === "soft-linear" ? linear : Math.exp(-(overlap ** 2) / cfg.soft_sigma)));
      }
      left[best] = -1;
    }
    return kept;
  }

  const levelName = (grid) => `P${Math.round(Math.log2(grid.stride))}`;

  // What the network said about a prepared image -> {width, height, detections, maps}, in pixels of the image.
  // said: logits [P * C], distances [P * 4], centerness [P], each flat. Detections are the stories of `fcos explain`.
  function tell(said, ready, image, about) {
    const cfg = about.config.decode, levels = grids(ready.height, ready.width, about.config.model);
    const size = ready.size, names = about.classes.names;
    let candidates = select(said, levels, cfg);
    if (cfg.clip === "before") for (const c of candidates) c.box = clip(c.box, size, cfg.clip_margin);
    if (cfg.drop_empty) candidates = candidates.filter((c) => solid(c.box));
    let kept = nms(candidates, cfg);
    if (cfg.clip === "after") {
      for (const c of candidates) c.box = clip(c.box, size, cfg.clip_margin);
      for (const k of kept) k.box = clip(k.box, size, cfg.clip_margin); // soft-NMS gave copies; cutting twice is once
      kept = kept.filter((c) => solid(c.box));
    }
    const across = image.width / size[1], down = image.height / size[0];
    const scaled = (values) => values.map((v, i) => v * (i % 2 ? down : across));
    const further = about.config.data.inclusive_boxes ? 1 : 0; // x2 and y2 of such a network are the last pixel inside
    const placed = (box) => scaled(box).map((v, i) => (i > 1 ? v + further : v));
    const told = new Map(kept.map((k) => [k, []]));
    for (const c of candidates) if (c.by && told.has(c.by)) told.get(c.by).push(c);
    const row = (c) => ({
      class: c.class, label: names[c.class] ?? String(c.class), score: c.score, box: placed(c.box), location: scaled(c.location),
    });
    const detections = kept.map((k) => ({
      ...row(k),
      point: k.point,
      probability: k.probability,
      centerness: k.centerness,
      level: levelName(k.grid),
      distances: scaled(k.distances),
      silenced: told.get(k).sort((a, b) => b.score - a.score).map(row),
    }));
    return { width: image.width, height: image.height, detections, maps: maps(said, levels, size, [across, down]) };
  }

  // Each level's highest class probability and centerness, 0..255, of the cells that lie on the image. extent: the
  // width and height that they cover, in pixels of the image; the last cells may reach beyond it.
  function maps(said, levels, size, [across, down]) {
    const classes = said.logits.length / said.centerness.length;
    return levels.map((grid) => {
      const rows = Math.min(Math.max(1, Math.ceil(size[0] / grid.stride)), grid.rows);
      const columns = Math.min(Math.max(1, Math.ceil(size[1] / grid.stride)), grid.columns);
      const best = new Uint8ClampedArray(rows * columns), centre = new Uint8ClampedArray(rows * columns);
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) {
          const point = grid.start + y * grid.columns + x;
          let most = -Infinity;
          for (let c = 0; c < classes; c++) most = Math.max(most, said.logits[point * classes + c]);
          best[y * columns + x] = 255 * sigmoid(most);
          centre[y * columns + x] = 255 * sigmoid(said.centerness[point]);
        }
      }
      const extent = [columns * grid.stepX * across, rows * grid.stepY * down];
      return { level: levelName(grid), width: columns, height: rows, extent, class: best, centerness: centre };
    });
  }

  return { prepare, resize, resizedShape, grids, tell };
})();
if (typeof module !== "undefined") module.exports = Fcos;
