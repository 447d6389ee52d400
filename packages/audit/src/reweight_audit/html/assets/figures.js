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
  const order = audit.wrong.map((_, c) => c).sort((a, b) => audit.wrong[b].value - audit.wrong[a].value);
  const widest = Math.max(0.01, ...audit.wrong.map(({ high }) => high));
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
        `${sentence(ranking.meaning)} The higher, the more suspicious; it tells well where the groups lie apart.`,
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

/** Figures by the true labels: title, and how they are written. */
const KNOWN = {
  auroc: ["AUROC, true labels", asAuroc],
  precision_1: ["Precision, worst 1\u202f%", asShare],
  precision_5: ["Precision, worst 5\u202f%", asShare],
  precision_wrong: ["Precision, as many as are wrong", asShare],
};

function signalTable(audit) {
  const known = Object.entries(KNOWN).filter(([key]) => audit.signals.some((signal) => key in signal.known));
  const cell = (value, asText) =>
    make("td", { class: "number" }, value === null || value === undefined ? "" : asText(value));
  const titles = [
    "Signal",
    "Meaning",
    ...(audit.planted ? ["AUROC, planted"] : []),
    ...known.map(([, [title]]) => title),
  ];
  const rows = audit.signals.map((signal) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, signal.name),
      make("td", { class: "meaning" }, signal.meaning),
      audit.planted ? cell(signal.auroc, asAuroc) : null,
      known.map(([key, [, asText]]) => cell(signal.known[key], asText)),
    ),
  );
  const of = [
    "What the run knows of each example; the first ranks them.",
    audit.planted || known.length
      ? "AUROC is 1 if every wrong label is more suspicious than every right one, 0.5 for chance."
      : "",
    known.length ? "Precision is the share of the most suspicious examples whose label is wrong." : "",
    audit.planted
      ? `Planted: ${counted(audit.planted, "example")} put among the others to measure this, shown nowhere else.`
      : "",
  ];
  return figure(
    "Signals",
    of.filter((text) => text !== "").join(" "),
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
      ? "They were not calibrated: the order of the examples can be trusted more than the probabilities themselves."
      : sentence(audit.calibrated);
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
