// What an answer looks like: the parts of the page that appear with it, made of elements and never of markup in strings.

const NO_BREAK = "\u00a0";

/** Makes an element of its tag, its properties (attributes, `text`, `style`, `on…`) and its children. */
export function element(tag, { text, style, ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(style ?? {})) made.style.setProperty(name, value);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Formats a probability as the Gradio page does: 0 % and 100 % are never claimed. */
export function percent(value) {
  const sign = value > 0.99 ? `>${NO_BREAK}` : value < 0.01 ? `<${NO_BREAK}` : "";
  const hundredths = 100 * Math.min(Math.max(value, 0.01), 0.99);
  const below = Math.floor(hundredths);
  const shown = hundredths - below === 0.5 ? below + (below % 2) : Math.round(hundredths); // half to even
  return `${sign}${shown}${NO_BREAK}%`;
}

/** Everything that is said of one picture; `explain` is called with the place of the label that a map is wanted of. */
export function answerView(facts, answer, explain) {
  const shown = [
    element("div", { class: "columns" },
      differentialView(facts, answer),
      element("div", {}, malignancyView(facts, answer), agreementView(facts, answer)),
    ),
    mapsView(facts, answer, explain),
  ].filter((part) => part !== null);
  const refused = answer.verdict?.scope === "out of scope";
  const summary = element("summary", { text: facts.words.held_back });
  const parts = refused ? [element("details", { id: "held-back" }, summary, ...shown)] : shown;
  return [verdictView(facts, answer), warningsView(facts, answer), ...parts].filter((part) => part !== null);
}

function section(id, title, ...children) {
  return element("section", { "aria-labelledby": id }, element("h2", { id, text: title }), ...children);
}

function bars(labels, probabilities) {
  const ranked = labels.map((label, i) => ({ ...label, value: probabilities[i] })).sort((a, b) => b.value - a.value);
  return element("ol", { class: "bars" }, ...ranked.map(({ name, code, value }) => element("li", {},
    element("span", { text: `${name} ` }, element("code", { text: code })),
    element("span", { class: "value", text: percent(value) }),
    element("span", { class: "bar", "aria-hidden": "true" }, element("span", { style: { width: `${100 * value}%` } })),
  )));
}

function warningsView(facts, { flags }) {
  if (!flags.length) return null;
  const found = flags.map((flag) => element("li", { "data-flag": flag, text: facts.quality.flags[flag] }));
  const title = element("strong", { text: "Check this picture" });
  return element("div", { class: "notice", role: "alert" }, title, element("ul", {}, ...found));
}

function verdictView({ words, gate }, { verdict }) {
  if (!verdict || verdict.scope === "in scope") return null;
  const [title, why] = verdict.scope === "unsure" ? words.unsure : words.out_of_scope;
  const limits = `refused below ${gate.refuse_below.toFixed(2)}, in scope from ${gate.accept_from.toFixed(2)} on`;
  return element("div", { id: "verdict", class: "notice", role: "alert", "data-scope": verdict.scope },
    element("strong", { text: title }),
    element("p", { text: why }),
    element("p", { class: "small", text: `Score ${verdict.score.toFixed(2)}, where 1 is most like the training images: ${limits}.` }),
  );
}

function differentialView(facts, { probabilities, set, abstains }) {
  const { labels, title } = facts;
  const silence = abstains ? [silenceView(facts)] : [];
  const view = section("differential", "Differential", ...silence, ...setView(facts, set), bars(labels, probabilities));
  view.append(element("p", {
    class: "small",
    text: `Calibrated probabilities by ${title} over its ${labels.length} labels; the model always answers with one of them.`,
  }));
  return view;
}

function silenceView({ abstention }) {
  const [title, why] = abstention.says;
  return element("div", { id: "abstains", class: "notice", role: "alert" }, element("strong", { text: title }), ` ${why}`);
}

/** The label set above the bars, in the words of the other page. */
function setView({ labels, label_sets: sets }, set) {
  if (!set) return [];
  const names = set.map((label) => withinSentence(labels[label].name)).join(", ");
  const said = set.length === 1 ? names : `one of ${names}`;
  return [
    element("p", { id: "set" }, element("strong", { text: said[0].toUpperCase() + said.slice(1) })),
    element("p", { class: "small", text: sets.promise }),
  ];
}

/** Writes a diagnosis small, but for an abbreviation. */
const withinSentence = (name) => (/^.[a-z]/.test(name) ? name[0].toLowerCase() + name.slice(1) : name);

function malignancyView(facts, { malignancy }) {
  const { words, operating_points: points } = facts;
  if (malignancy === null) return section("malignancy", "Malignancy score", element("p", { text: words.abstains }));
  const marks = points.map(({ threshold }) => element("span", { class: "mark", style: { left: `${100 * threshold}%` } }));
  const said = points.map((point) => {
    const reached = malignancy >= point.threshold;
    const text = `: ${reached ? point.reached : point.below}`;
    return element("li", { class: reached ? "reached" : "below" }, element("strong", { text: point.title }), text);
  });
  const filled = element("span", { style: { width: `${100 * malignancy}%` } });
  const score = element("strong", { class: "score", text: percent(malignancy) });
  return section("malignancy", "Malignancy score",
    element("p", {}, score, " estimated probability of a malignant label"),
    element("div", { class: "bar scale", "aria-hidden": "true" }, filled, ...marks),
    points.length ? element("ul", { class: "points" }, ...said) : element("p", { class: "small", text: words.no_points }),
  );
}

function agreementView(facts, { disagreement, byMember }) {
  const { words, members } = facts;
  if (disagreement === null) return section("agreement", "Agreement", element("p", { text: words.single }));
  const [, text] = words.disagreement.find(([limit]) => limit === null || disagreement < limit);
  const measured = `Disagreement ${disagreement.toFixed(2)}, where 0 is none and 1 the most there can be.`;
  const views = members.map(({ name, labels }, m) => (
    element("section", { "aria-label": name }, element("h3", { text: name }), bars(labels, byMember[m]))
  ));
  return section("agreement", "Agreement",
    element("p", { text: `${text} ` }, element("span", { class: "small", text: measured })),
    element("details", {},
      element("summary", { text: "Each member's own view" }),
      element("div", { class: "members" }, ...views),
    ),
  );
}

// ------------------------------------------------------------------------------------------------ heat maps

/** A canvas that shows a bitmap, described for those who do not see it. */
function canvasOf(bitmap, label) {
  const described = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  const canvas = element("canvas", { width: bitmap.width, height: bitmap.height, ...described });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

function mapsView(facts, { picture, maps }, explain) {
  if (!maps) return null;
  const { words, method, targets } = facts;
  const view = section("maps", `Where the model looks: ${maps.name} `);
  if (maps.name.toLowerCase() !== maps.code) view.querySelector("h2").append(element("code", { text: maps.code }));
  const layers = maps.layers.map(({ bitmap, title }, i) => {
    const canvas = canvasOf(bitmap, `${method} map for ${maps.name}${title && ` by ${title}`}`);
    canvas.classList.add("heat");
    canvas.hidden = i > 0;
    return canvas;
  });
  const empty = element("span", { text: `. ${words.no_heat}` });
  const show = (chosen) => {
    layers.forEach((layer, i) => { layer.hidden = i !== chosen; });
    empty.hidden = !maps.layers[chosen].empty;
  };
  show(0);
  const original = canvasOf(picture, "The picture as it was analysed");
  const stack = element("div", { class: "stack" }, canvasOf(picture), ...layers);
  const about = targets.findIndex(({ code }) => code === maps.code);
  const titles = maps.layers.map(({ title }) => title || "all members, averaged");
  view.style.setProperty("--heat", 0.5);
  view.append(
    element("div", { class: "pair" },
      element("figure", { id: "original" }, original, element("figcaption", { text: "Original" })),
      element("figure", { id: "overlay" }, stack, element("figcaption", { text: method }, empty)),
    ),
    element("div", { class: "controls" },
      element("label", { text: "Opacity of the map " }, element("input", {
        id: "opacity", type: "range", min: 0, max: 100, value: 50,
        oninput: ({ target }) => view.style.setProperty("--heat", target.value / 100),
      })),
      select("target", "Explain", targets.map(({ name }) => name), about, explain),
      layers.length > 1 ? select("member", "Map of", titles, 0, show) : null,
    ),
    element("div", { class: "legend" },
      element("span", { text: "little" }),
      element("span", { class: "ramp", "aria-hidden": "true" }),
      element("span", { text: "most" }),
    ),
    element("p", { class: "small", text: words.heat }),
  );
  return view;
}

function select(id, title, names, chosen, choose) {
  const options = names.map((name, i) => element("option", { value: i, text: name, selected: i === chosen }));
  const choice = element("select", { id, onchange: ({ target }) => choose(Number(target.value)) }, ...options);
  return element("label", { text: `${title} ` }, choice);
}

// ------------------------------------------------------------------------------------------------ a batch

/** One row of the table: a file and its answer, or the line that says why there is none. */
export function rowView(facts, { name, answer, error }, open) {
  if (error) {
    const wrong = element("td", { colspan: 7, class: "wrong", text: error });
    return element("tr", {}, element("th", { scope: "row", text: name }), wrong);
  }
  const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  const points = answer.malignancy === null ? [] : facts.operating_points;
  const reached = points.filter(({ threshold }) => answer.malignancy >= threshold);
  const silent = answer.abstains ? element("strong", { text: `${facts.abstention.says[0]} ` }) : "";
  const set = answer.set ? answer.set.map((label) => facts.labels[label].code).join(", ") : "not fitted";
  return element("tr", {},
    element("th", { scope: "row" }, element("button", { type: "button", class: "link", text: name, onclick: open })),
    element("td", { text: answer.verdict ? answer.verdict.scope : "–" }),
    element("td", { text: `${facts.labels[best].name} ` }, element("code", { text: facts.labels[best].code })),
    element("td", {}, silent, set),
    element("td", { text: percent(answer.probabilities[best]) }),
    element("td", { text: answer.malignancy === null ? "n/a" : percent(answer.malignancy) }),
    element("td", { text: reached.map(({ title }) => title).join(", ") || "–" }),
    element("td", { text: answer.flags.join(", ").replaceAll("_", " ") || "–" }),
  );
}

/** The rows as CSV, in the columns of the Gradio page's table; text that a spreadsheet would run has a quote before it. */
export function csvOf(facts, items) {
  const cell = (value) => {
    const text = value === true ? "True" : value === false ? "False" : String(value ?? "");
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const rows = items.map(({ name, answer, error }) => {
    if (error) return { file: name, error };
    const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
    const points = answer.malignancy === null ? [] : facts.operating_points;
    const suspicious = points.map((point) => [`suspicious_${point.name}`, answer.malignancy >= point.threshold]);
    return {
      file: name, error: null, model: facts.name, version: facts.version, label: facts.labels[best].code,
      probability: answer.probabilities[best], malignancy: answer.malignancy, ...Object.fromEntries(suspicious),
      disagreement: answer.disagreement, label_set: answer.set?.map((label) => facts.labels[label].code).join(" "),
      abstains: answer.abstains, scope: answer.verdict?.scope, scope_score: answer.verdict?.score, warnings: answer.flags.join(" "),
      ...Object.fromEntries(facts.labels.map(({ code }, i) => [`p_${code}`, answer.probabilities[i]])),
    };
  });
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  return `${lines.map((line) => line.map(cell).join(",")).join("\n")}\n`;
}
