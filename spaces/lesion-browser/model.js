// From the graphs' outputs to an answer: what lesion_hub.inference does with the same numbers. Needs nothing of a browser.
// A "facts" is the page's model.json, and a "map" between label spaces is {indices, count}: where each label goes, -1 nowhere.

const sum = (values) => values.reduce((total, value) => total + value, 0);
const entropy = (values) => -sum(values.map((value) => (value > 0 ? value * Math.log(value) : 0)));

export function softmax(logits) {
  const top = Math.max(...logits);
  const raised = logits.map((logit) => Math.exp(logit - top));
  const total = sum(raised);
  return raised.map((value) => value / total);
}

export const indexOfLargest = (values) => values.indexOf(Math.max(...values));

/** Brings probabilities into another label space; the mass of a label that goes nowhere is shared in proportion. */
export function mapped(probabilities, { indices, count }) {
  const target = new Array(count).fill(0);
  indices.forEach((to, from) => { if (to >= 0) target[to] += probabilities[from]; });
  if (!indices.includes(-1)) return target;
  const total = sum(probabilities);
  const kept = sum(target);
  return target.map((value) => (kept <= 1e-12 * total ? total / count : (value * total) / kept));
}

/** Makes the members' probabilities one: their weighted mean, or that of their logarithms, then tempered. */
export function combined(facts, byMember) {
  const { members, combine, temperature, smallest_probability: smallest } = facts;
  const logarithm = (value) => Math.log(Math.max(value, smallest));
  const rows = members.map((member, m) => mapped(byMember[m], member.to_labels));
  const mean = (read) => facts.labels.map((_, label) => sum(members.map((member, m) => member.weight * read(rows[m][label]))));
  if (combine === "logits") return softmax(mean(logarithm).map((value) => value / temperature));
  const probabilities = mean((value) => value);
  return temperature === 1 ? probabilities : softmax(probabilities.map((value) => logarithm(value) / temperature));
}

/** Measures how far apart the members are, from 0 to 1: their Jensen-Shannon divergence as a share of the largest possible. */
export function disagreement(facts, byMember) {
  const { members } = facts;
  if (members.length === 1) return null;
  const rows = members.map((member, m) => mapped(byMember[m], member.to_labels));
  const mean = facts.labels.map((_, label) => sum(members.map((member, m) => member.weight * rows[m][label])));
  const spread = entropy(mean) - sum(members.map((member, m) => member.weight * entropy(rows[m])));
  const largest = entropy(members.map((member) => member.weight));
  return largest > facts.smallest_probability ? Math.min(1, Math.max(0, spread / largest)) : 0;
}

/** The probability of a malignant label; null where the labels say nothing of it. */
export function malignancy(facts, probabilities) {
  if (facts.malignancy === null) return null;
  return Math.min(mapped(probabilities, facts.malignancy)[facts.malignancy.malignant], 1);
}

/** The places of the labels in an answer's set, the most probable first; null where no sets are fitted. */
export function labelSet(facts, probabilities) {
  if (!facts.label_sets) return null;
  const { least } = facts.label_sets;
  const inside = probabilities.map((_, label) => label).filter((label) => least[label] !== null && probabilities[label] >= least[label]);
  if (!inside.length) return [indexOfLargest(probabilities)];
  return inside.sort((one, other) => probabilities[other] - probabilities[one]);
}

/**
 * Whether the picture is one that the model was made for, by the mean of its members' log-odds; null where no gate is fitted.
 *
 * `outputs` holds each member's `logits` and `pooled`, of F channels the means, the maxima and the deviations.
 */
export function verdict(facts, outputs) {
  if (!facts.gate) return null;
  const odds = facts.gate.members.map((gate, m) => {
    if (gate === null) return null;
    const { logits, pooled } = outputs[m];
    const channels = gate.weights.length / 2;
    const values = gate.reads === "logits" ? logits : [...pooled.slice(0, channels), ...pooled.slice(2 * channels)];
    return gate.bias + sum(gate.weights.map((weight, i) => weight * values[i]));
  }).filter((value) => value !== null);
  const score = 1 / (1 + Math.exp(-sum(odds) / odds.length));
  const { refuse_below: refuse, accept_from: accept } = facts.gate;
  return { score, scope: score < refuse ? "out of scope" : score >= accept ? "in scope" : "unsure" };
}

/** What speaks against an answer, from 0 to 1: the weighted mean of the signals that are known; null where none was fitted. */
export function doubt(facts, { probabilities, set, disagreement: apart, verdict: judged }) {
  if (!facts.abstention) return null;
  const others = probabilities.length - 1;
  const clipped = (value) => Math.min(1, Math.max(0, value));
  const signals = {
    confidence: clipped((1 - Math.max(...probabilities)) * ((others + 1) / others)),
    set_size: set && clipped((set.length - 1) / others),
    disagreement: apart,
    scope: judged && clipped(1 - judged.score),
  };
  const used = Object.entries(facts.abstention.weights).filter(([name, weight]) => weight > 0 && signals[name] !== null);
  const total = sum(used.map(([, weight]) => weight));
  return total > 0 ? sum(used.map(([name, weight]) => weight * signals[name])) / total : null;
}

// ------------------------------------------------------------------------------------------------ heat maps

/**
 * One member's map of some labels together, zero or positive, on the cells of its last feature map.
 *
 * `maps` holds a map for every label of the member; that of several is the sum of theirs, each weighted by its share of their
 * probability, since that is how the gradient of their joint logit is made up.
 */
export function cellsOf(member, logits, maps, wanted) {
  const [, rows, columns] = maps.dims;
  const size = rows * columns;
  const cells = new Float64Array(size);
  const own = logits.map((_, label) => label).filter((label) => wanted.includes(member.to_labels.indices[label]));
  if (own.length) {
    const shares = softmax(own.map((label) => logits[label]));
    own.forEach((label, i) => {
      for (let cell = 0; cell < size; cell += 1) cells[cell] += shares[i] * maps.data[label * size + cell];
    });
  }
  return { rows, columns, cells: cells.map((value) => Math.max(value, 0)) };
}

/** Rounds as Python does, half to even. */
function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Where a network's input lies on an image of (height, width): its whole resized, and the input's corner in it. */
export function placement(framing, size) {
  const { mode, size: input, scale_size: scale } = framing;
  let resized;
  if (mode === "squash") resized = scale;
  else if (mode === "center" && scale[0] === scale[1]) {
    const short = Math.min(...size);
    resized = size.map((side) => Math.floor((scale[0] * side) / short));
  } else {
    const ratios = size.map((side, axis) => side / scale[axis]);
    const ratio = mode === "border" ? Math.max(...ratios) : Math.min(...ratios);
    resized = size.map((side) => rounded(side / ratio));
  }
  const corner = resized.map((side, axis) => {
    const excess = side - input[axis];
    return excess < 0 ? -Math.floor(-excess / 2) : rounded(excess / 2);
  });
  return { resized, corner, input };
}

/** Which two cells a pixel lies between along one side, and the second one's share; null for what the network did not see. */
function between(pixel, pixels, cells, resized, corner, input) {
  const along = (pixel + 0.5) * (resized / pixels) - corner;
  if (along < 0 || along > input) return null;
  const position = Math.min(Math.max(along * (cells / input) - 0.5, 0), cells - 1);
  const lower = Math.min(Math.floor(position), Math.max(cells - 2, 0));
  return { lower, upper: Math.min(lower + 1, cells - 1), share: position - lower };
}

/** Lays a member's cells over the picture: [height, width] values, bilinear, scaled to a maximum of 1. */
export function onPicture({ rows, columns, cells }, { resized, corner, input }, [height, width]) {
  const heat = new Float32Array(height * width);
  const across = Array.from({ length: width }, (_, x) => between(x, width, columns, resized[1], corner[1], input[1]));
  for (let y = 0; y < height; y += 1) {
    const down = between(y, height, rows, resized[0], corner[0], input[0]);
    if (down === null) continue;
    const row = (x) => (1 - down.share) * cells[down.lower * columns + x] + down.share * cells[down.upper * columns + x];
    const line = Array.from({ length: columns }, (_, x) => row(x));
    across.forEach((place, x) => {
      if (place) heat[y * width + x] = (1 - place.share) * line[place.lower] + place.share * line[place.upper];
    });
  }
  return scaled(heat);
}

/** Averages the members' maps under their weights, and scales to a maximum of 1 again. */
export function averaged(facts, maps) {
  const total = new Float32Array(maps[0].length);
  maps.forEach((map, m) => {
    const { weight } = facts.members[m];
    map.forEach((value, i) => { total[i] += weight * value; });
  });
  return scaled(total);
}

function scaled(heat) {
  const top = heat.reduce((largest, value) => Math.max(largest, value), 0);
  return top > 0 ? heat.map((value) => value / top) : heat;
}
