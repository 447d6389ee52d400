/* The figures beside the gallery: of the labels, and of the run. */

/** Fill the part on labels; `showPair(given, suggested)` opens the examples of two classes, null for any. */
function showLabels(place, audit, showPair) {
  place.append(
    make("div", { class: "pair-of-figures" }, classTable(audit, showPair), largestConfusions(audit, showPair)),
    noiseMatrix(audit, showPair),
  );
}

/** Share of wrong labels of each given class, the most first. */
function classTable(audit, showPair) {
  const present = audit.wrong.map((_, c) => c).filter((c) => audit.wrong[c].examples > 0);
  const order = present.sort((a, b) => audit.wrong[b].value - audit.wrong[a].value);
  const widest = Math.max(0.01, ...order.map((c) => audit.wrong[c].high));
  const rows = order.map((c) => {
    const wrong = audit.wrong[c];
    return make(
      "tr",
      {},
      make(
        "th",
        { scope: "row" },
        make("button", { type: "button", class: "link", click: () => showPair(c, null) }, audit.classes[c]),
      ),
      make("td", { class: "number" }, asCount(wrong.examples)),
      make("td", { class: "number" }, asShare(wrong.value)),
      make("td", { class: "number soft" }, asInterval(wrong)),
      make("td", { class: "bar-cell" }, intervalBar(wrong, widest)),
    );
  });
  const titles = ["Given label", "Examples", "Wrong", "Interval"];
  return figure(
    "Wrong labels by class",
    "Estimated share of wrong labels among those of each given class; the interval (the line) holds it in 95 of 100 " +
      "cases.",
    make(
      "div",
      { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Wrong labels by class" },
      make(
        "table",
        { class: "list" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            titles.map((title) => make("th", { scope: "col" }, title)),
            make("td"),
          ),
        ),
        make("tbody", {}, rows),
      ),
    ),
  );
}

function intervalBar({ value, low, high }, widest) {
  const at = (share) => (100 * share) / widest;
  return draw(
    "svg",
    { class: "interval", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { x: 0, y: 2, width: at(value), height: 8 }),
    draw("line", { x1: at(low), x2: at(high), y1: 6, y2: 6 }),
  );
}

/** Fill the part on the run: signals, weights, learning curves, options. */
function showRun(place, audit) {
  const ranking = audit.signals[0];
  place.append(
    ...audit.warnings.map((message) => make("p", { class: "notice" }, message)),
    make(
      "div",
      { class: "pair-of-figures" },
      histogram(
        "Mean weights",
        "What the method weighed each example by, in the mean over training, as shares of each group; the outermost " +
          `bars have all that lies beyond. The weights of the ${counted(audit.examples, "example")} are worth ` +
          `${asCount(audit.effective)} of equal weight, (\u03a3w)\u00b2/\u03a3w\u00b2.`,
        audit.histograms.weights,
      ),
      histogram(
        `Ranking signal: ${ranking.name}`,
        `${sentence(ranking.meaning)} It tells well where the groups lie apart.`,
        audit.histograms.signal,
      ),
    ),
    signalTable(audit),
    ...learning(audit),
    options(audit),
  );
}

/** Words with a capital at the beginning and a full stop at the end. */
const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

const asAuroc = (value) => value.toFixed(3);

/** Figures of a signal: title, value, and how it is written. */
const QUALITIES = [
  ["AUROC, known examples", (signal) => signal.auroc, asAuroc],
  ["AUROC, true labels", (signal) => signal.known.auroc, asAuroc],
  ["Precision, worst 1\u202f%", (signal) => signal.known.precision_1, asShare],
  ["Precision, worst 5\u202f%", (signal) => signal.known.precision_5, asShare],
  ["Precision, as many as are wrong", (signal) => signal.known.precision_wrong, asShare],
];

const isKnown = (value) => value !== null && value !== undefined;

function signalTable(audit) {
  const qualities = QUALITIES.filter(([, of]) => audit.signals.some((signal) => isKnown(of(signal))));
  const titles = ["Signal", "Meaning", ...qualities.map(([title]) => title)];
  const rows = audit.signals.map((signal) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, signal.name),
      make("td", { class: "meaning" }, signal.meaning),
      qualities.map(([, of, asText]) => make("td", { class: "number" }, isKnown(of(signal)) ? asText(of(signal)) : "")),
    ),
  );
  const meaning = [
    "What is known of each example; the first ranks them.",
    qualities.length ? "AUROC is 1 if every wrong label has a higher signal than every right one, 0.5 for chance;" : "",
    qualities.length ? "below that the signal is inverted." : "",
    qualities.length > 1 ? "Precision is the share of the most suspicious examples whose label is wrong." : "",
  ];
  return figure(
    "Signals",
    meaning.filter((text) => text !== "").join(" "),
    make(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Signals" },
      make(
        "table",
        { class: "list signals" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            titles.map((title) => make("th", { scope: "col" }, title)),
          ),
        ),
        make("tbody", {}, rows),
      ),
    ),
    calibration(audit),
  );
}

function calibration(audit) {
  const text =
    audit.calibrated === null
      ? "They are not calibrated: the order of the examples can be trusted more than the probabilities."
      : `They are calibrated by ${audit.calibrated}.`;
  return make("p", { class: "after" }, make("b", {}, "Probabilities. "), text);
}

function learning(audit) {
  const line = (key, name, look) => ({ name, look, values: audit.curves[key] });
  const has = ({ values }) => values.some((value) => value !== null);
  const losses = [line("train_loss", "training", "training")].filter(has);
  const accuracies = [
    line("train_accuracy", "training", "training"),
    line("val_accuracy", "validation", "validation"),
    line("test_accuracy", "test", "test"),
  ].filter(has);
  const charts = [];
  if (losses.length) {
    charts.push(
      curves("Loss", "Mean loss of the training examples, on the labels given.", losses, audit.stages, null, asNumber),
    );
  }
  if (accuracies.length) {
    const meaning =
      "Share of right predictions; of training examples, by the labels given, so that a wrong one that is " +
      "not learned counts as a mistake.";
    charts.push(curves("Accuracy", meaning, accuracies, audit.stages, [0, 1], asShare, asTick));
  }
  return charts.length ? [make("div", { class: "pair-of-figures" }, charts)] : [];
}

function options(audit) {
  const rows = (entries) =>
    make(
      "dl",
      { class: "options" },
      entries.map(([term, value]) => asTerm(term, value)),
    );
  const asPair = ({ flag, value }) => [flag, value];
  const chosen = audit.options.filter((option) => !option.default);
  const others = audit.options.filter((option) => option.default);
  return make(
    "div",
    { class: "pair-of-figures" },
    figure(
      "Options",
      "Those of the run that are not defaults.",
      make(
        "div",
        {},
        rows(chosen.map(asPair)),
        others.length
          ? make("details", {}, make("summary", {}, counted(others.length, "default")), rows(others.map(asPair)))
          : null,
      ),
    ),
    figure("Result", "What the run ended with.", rows(audit.results.map(([title, value]) => [title, asNumber(value)]))),
  );
}
