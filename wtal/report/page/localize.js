// Localisation (wtal.inference.localize.detect) and evaluation in the browser, bitwise equal to the arithmetic in
// csrc/common. Math.fround after every operation gives float32 arithmetic: if the double result of + - * / on two
// float32 values is rounded to float32, it is the correctly rounded float32 result.
const Localize = (() => {
  const f = Math.fround;
  const TINY = 2 ** -126; // the smallest normal float32

  // ---- csrc/common/exp.h ----
  const LOG2E = 1.4426950216293335, LN2_HIGH = 0.693115234375, LN2_LOW = 3.194618329871446e-5;
  const INVERSE_FACTORIAL = [1, 2, 6, 24, 120, 720, 5040].map((n) => f(1 / n));
  const word = new Int32Array(1), float = new Float32Array(word.buffer);
  const powerOfTwo = (power) => {
    word[0] = (power + 127) << 23;
    return float[0];
  };

  /** exp(x) for x <= 0. */
  function exp(x) {
    if (x < -104) return 0;
    const k = Math.trunc(f(f(x * LOG2E) - 0.5));
    const r = f(f(x - f(k * LN2_HIGH)) - f(k * LN2_LOW));
    let p = INVERSE_FACTORIAL[6];
    for (let i = 5; i >= 0; --i) p = f(f(p * r) + INVERSE_FACTORIAL[i]);
    p = f(f(p * r) + 1);
    const half = Math.trunc(k / 2);
    return f(f(p * powerOfTwo(half)) * powerOfTwo(k - half));
  }

  // ---- wtal/inference/localize.py ----

  /** The scores of one class in a video, scaled to [0, 1]. */
  function scale(column) {
    let low = Infinity, high = -Infinity;
    for (const value of column) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const spread = Math.max(f(high - low), TINY);
    return column.map((value) => f(f(value - low) / spread)); // storing in a Float32Array rounds too
  }

  /** The scores with each snippet divided into `parts` parts, interpolated linearly between the centres of snippets. */
  function upsample(column, parts) {
    if (parts === 1) return column;
    const finer = new Float32Array(parts * column.length), last = column.length - 1;
    for (let part = 0; part < parts; ++part) {
      const offset = (part + 0.5) / parts - 0.5, share = f(Math.abs(offset)), step = offset < 0 ? -1 : 1;
      for (let t = 0; t <= last; ++t) {
        const own = column[t], other = column[Math.min(Math.max(t + step, 0), last)];
        finer[t * parts + part] = f(own + f(f(other - own) * share));
      }
    }
    return finer;
  }

  // ---- csrc/common/proposal_rule.h ----

  function sum(column, begin, end, start = 0) {
    for (let t = begin; t < end; ++t) start += column[t];
    return start;
  }

  function proposalScore(column, start, end, kind) {
    if (kind === "max") {
      let best = column[start];
      for (let t = start + 1; t < end; ++t) if (column[t] > best) best = column[t];
      return best;
    }
    const length = end - start, inside = sum(column, start, end) / length;
    if (kind === "mean") return f(inside);
    const last = end - 1, margin = 0.25 * length;
    const low = Math.max(Math.trunc(start - margin), 0), high = Math.min(Math.trunc(last + margin), column.length - 1);
    const outer = start - low + (high - last);
    if (outer === 0) return f(inside);
    return f(inside - sum(column, end, high + 1, sum(column, low, start)) / outer);
  }

  /** The maximal runs above each threshold, without duplicates: [[start, end, score], ...]. */
  function proposals(column, thresholds, kind) {
    const runs = [];
    const above = (t, threshold) => t >= 0 && t < column.length && column[t] > threshold;
    thresholds.forEach((threshold, k) => {
      const lower = thresholds.filter((other, i) => other < threshold || (other === threshold && i < k));
      for (let end = 0; ; ) {
        let start = end;
        while (start < column.length && !(column[start] > threshold)) ++start;
        if (start >= column.length) break;
        end = start + 1;
        while (end < column.length && column[end] > threshold) ++end;
        if (lower.some((other) => !above(start - 1, other) && !above(end, other))) continue;
        runs.push([start, end, proposalScore(column, start, end, kind)]);
      }
    });
    return runs;
  }

  // ---- csrc/common/soft_nms_decay.h, csrc/cpu/soft_nms.cpp ----

  const EPSILON = f(1e-6);

  /**
   * Soft-NMS of one group: index and score of each kept entry, in the order of selection: [[index, score], ...].
   * entries: [[start, end, score], ...]. Segments without overlap do not change each other: the factor is exactly 1.
   */
  function suppress(entries, settings) {
    const sigma = f(settings.sigma), iou = f(settings.iou_threshold), least = f(settings.min_score);
    const gaussian = settings.nms === "gaussian", hard = settings.nms === "hard", everywhere = hard && iou <= 0;
    const count = entries.length;
    const starts = new Float32Array(count), ends = new Float32Array(count), lengths = new Float32Array(count);
    const scores = new Float32Array(count), running = new Int32Array(count); // running: ascending indices
    let left = 0;
    for (let i = 0; i < count; ++i) {
      [starts[i], ends[i], scores[i]] = entries[i];
      lengths[i] = f(f(ends[i] - starts[i]) + EPSILON);
      if (!(scores[i] < least)) running[left++] = i;
    }
    const kept = [];
    while (kept.length < settings.max_detections && left) {
      let best = running[0]; // of equal scores, the first wins
      for (let at = 1; at < left; ++at) if (scores[running[at]] > scores[best]) best = running[at];
      kept.push([best, scores[best]]);
      let still = 0;
      for (let at = 0; at < left; ++at) {
        const i = running[at];
        if (i === best) continue;
        const gap = f(Math.min(ends[best], ends[i]) - Math.max(starts[best], starts[i]));
        if (gap > 0 || everywhere) {
          const shared = gap > 0 ? gap : 0, overlap = f(shared / f(f(lengths[best] + lengths[i]) - shared));
          if (gaussian) {
            scores[i] = f(scores[i] * exp(f(-f(overlap * overlap) / sigma)));
          } else if (overlap >= iou) {
            if (hard) continue;
            scores[i] = f(scores[i] * f(1 - overlap));
          }
          if (scores[i] < least) continue;
        }
        running[still++] = i;
      }
      left = still;
    }
    return kept;
  }

  /** The classes to localise, as indices into video.classes: those with a probability above theta_cls, and the best. */
  function lookedFor(video, source, settings) {
    const level = video.level[source], theta = f(settings.theta_cls);
    let best = 0;
    level.forEach((value, i) => {
      if (value > level[best]) best = i;
    });
    return level.map((value, i) => i).filter((i) => level[i] > theta || i === best);
  }

  /**
   * The detections of one video, by class and in the order of selection: [{label, start, end, score, from, to}, ...].
   * `columns(i)` returns the frame scores of class video.classes[i] as a Float32Array; `from` and `to` are seconds.
   */
  function detect(video, columns, source, settings) {
    const thresholds = settings.theta_loc.map(f), parts = settings.upsample, detections = [];
    for (const place of lookedFor(video, source, settings)) {
      const level = video.level[source][place];
      const column = columns(place);
      // A video of one snippet is a single proposal: its score cannot be compared with other snippets.
      const entries = column.length === 1 ? [[0, parts, 1]] : proposals(upsample(column, parts), thresholds, settings.score);
      for (const entry of entries) entry[2] = f(Math.max(entry[2], 0) * level);
      for (const [at, score] of suppress(entries, settings)) {
        const [start, end] = entries[at];
        const from = Math.max(0, edge(video, start / parts)), to = Math.min(edge(video, end / parts), video.end ?? Infinity);
        if (from < to) detections.push({ label: video.classes[place], start, end, score, from, to });
      }
    }
    return detections;
  }

  // ---- wtal/data/timebase.py ----
  const edge = ({ timebase: [fps, stride, window] }, index) => (index * stride + 0.5 * (window - stride)) / fps;
  const center = ({ timebase: [fps, stride, window] }, index) => (index * stride + 0.5 * window) / fps;
  const position = ({ timebase: [fps, stride, window] }, second) => (second * fps - 0.5 * (window - stride)) / stride;

  // ---- csrc/matching.cpp, wtal/evaluation/average_precision.py ----

  function tiou(a, b) {
    const shared = Math.max(0, Math.min(a[1], b[1]) - Math.max(a[0], b[0]));
    const union = b[1] - b[0] + (a[1] - a[0]) - shared;
    if (union > 0) return shared / union;
    return a[0] === b[0] && a[1] === b[1] ? 1 : 0;
  }

  /** For each detection of one video and class, the index of the matched instance, or -1. Both are lists of [start, end]. */
  function match(detections, instances, threshold) {
    const taken = new Set();
    return detections.map((detection) => {
      let best = -1, most = threshold;
      instances.forEach((instance, i) => {
        if (taken.has(i)) return;
        const overlap = tiou(detection, instance);
        if (overlap >= most) [best, most] = [i, overlap]; // of equal overlaps, the last wins
      });
      if (best >= 0) taken.add(best);
      return best;
    });
  }

  /** The area under the interpolated precision-recall curve; hits are in the order of descending score. */
  function averagePrecision(hits, count) {
    let positives = hits.reduce((total, hit) => total + hit, 0), best = 0, area = 0;
    for (let i = hits.length - 1; i >= 0; --i) {
      best = Math.max(best, positives / (i + 1));
      if (hits[i]) {
        area += best;
        --positives;
      }
    }
    return area / count;
  }

  const roundHalfEven = (x) => {
    const low = Math.floor(x), rest = x - low;
    return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
  };
  // ---- wtal/evaluation/wtalc_grid.py ----
  const onGrid = (segment) => segment.map((second) => roundHalfEven((second * 25) / 16));
  const positions = (segment) => segment.map((second) => roundHalfEven(((second * 25) / 16) * 1e9) / 1e9);

  /** Whether a detection shares a snippet with an ambiguous interval of its video. */
  function meets(segment, intervals) {
    if (!intervals.length) return false;
    const [start, end] = positions(segment).map(Math.trunc);
    return intervals.map(onGrid).some(([a, b]) => Math.max(start, a) < Math.min(end, b));
  }

  /**
   * mAP in percent at each threshold: {mean, perTiou}; null if no video has an instance.
   * `detected[v]` has the detections of `videos[v]` from detect; protocol is "seconds" or "snippets".
   */
  function evaluate(videos, detected, thresholds, protocol) {
    const snippets = protocol === "snippets", same = (segment) => segment;
    const place = snippets ? onGrid : same, placeDetection = snippets ? positions : same;
    const byClass = new Map(); // class -> {count, videos: [{truth, detections}]}
    videos.forEach((video, v) => {
      for (const [start, end, label] of video.truth || []) {
        if (!byClass.has(label)) byClass.set(label, { count: 0, videos: new Map() });
        const own = byClass.get(label);
        own.count += 1;
        if (!own.videos.has(v)) own.videos.set(v, []);
        const segment = place([start, end]);
        if (!snippets || segment[0] < segment[1]) own.videos.get(v).push(segment); // an empty instance cannot be matched
      }
    });
    if (!byClass.size) return null;
    const detections = new Map([...byClass.keys()].map((label) => [label, []]));
    detected.forEach((listed, v) => {
      for (const entry of [...listed].sort((a, b) => b.score - a.score)) {
        if (meets([entry.from, entry.to], videos[v].ambiguous || [])) continue;
        detections.get(entry.label)?.push({ score: entry.score, v, segment: placeDetection([entry.from, entry.to]) });
      }
    });
    const perTiou = thresholds.map((threshold) => {
      let total = 0;
      for (const [label, own] of byClass) {
        const ordered = detections.get(label).sort((a, b) => b.score - a.score); // the sort is stable
        const byVideo = new Map();
        ordered.forEach((entry, i) => {
          if (!byVideo.has(entry.v)) byVideo.set(entry.v, []);
          byVideo.get(entry.v).push(i);
        });
        const hits = new Array(ordered.length).fill(0);
        for (const [v, list] of byVideo) {
          const instances = own.videos.get(v);
          if (!instances) continue;
          match(list.map((i) => ordered[i].segment), instances, threshold).forEach((taken, i) => {
            if (taken >= 0) hits[list[i]] = 1;
          });
        }
        total += 100 * averagePrecision(hits, own.count);
      }
      return total / byClass.size;
    });
    return { perTiou, mean: perTiou.reduce((a, b) => a + b, 0) / perTiou.length };
  }

  // ---- the payload ----

  /** Decodes base64 of little-endian 16-bit integers to float32 in [0, 1]. */
  function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer), values = new Float32Array(bytes.length / 2);
    for (let i = 0; i < values.length; ++i) values[i] = view.getUint16(2 * i, true) / 65535;
    return values;
  }

  /** The frame scores of one video, by source and index of the class; decoded at the first access. */
  function framesOf(video) {
    const unpacked = {}, scaled = new Map();
    const raw = (name) => (unpacked[name] ??= unpack(video.frames[name]));
    const column = (name, place) => raw(name).subarray(place * video.length, (place + 1) * video.length);
    return (source, place) => {
      const key = `${source} ${place}`;
      if (!scaled.has(key)) {
        if (source === "ensemble") {
          const a = column("cbp", place), b = column("vlp", place);
          scaled.set(key, scale(a.map((value, t) => f(value + b[t]) / 2)));
        } else {
          scaled.set(key, scale(column(source, place)));
        }
      }
      return scaled.get(key);
    };
  }

  return { averagePrecision, center, detect, edge, evaluate, exp, framesOf, lookedFor, match, meets, onGrid, position, positions, tiou, unpack };
})();
