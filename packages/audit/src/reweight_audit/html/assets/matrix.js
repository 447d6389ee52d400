/* Which classes are confused: the largest pairs, and the table of all. */

const WIDEST = 120;
const LARGEST = 12;

/** The pairs with the most wrong labels as bars; a pair opens its examples. */
function largestConfusions(audit, showPair) {
  const pairs = audit.confusions.slice(0, LARGEST);
  const title = "Largest confusions";
  const meaning = "Estimated number of examples by the label that they have and the one that they should have.";
  if (pairs.length === 0) return figure(title, meaning, make("p", { class: "notice" }, "There are none."));
  const rows = pairs.map(([given, suggested, count]) =>
    make(
      "li",
      {},
      make(
        "button",
        { type: "button", class: "pair", "--share": count / pairs[0][2], click: () => showPair(given, suggested) },
        make(
          "span",
          { class: "labels" },
          make("span", { class: "given" }, audit.classes[given]),
          make("span", { class: "to" }, " \u2192 "),
          make("span", { class: "suggested" }, audit.classes[suggested]),
        ),
        make("span", { class: "scale", "aria-hidden": "true" }),
        make("span", { class: "number" }, asEstimate(count)),
      ),
    ),
  );
  return figure(title, meaning, make("ol", { class: "pairs" }, rows));
}

/** Given class by suggested class as a table, coloured by number off the diagonal. */
function noiseMatrix(audit, showPair) {
  const shown = shownClasses(audit);
  const counts = new Map(audit.confusions.map(([given, suggested, count]) => [`${given} ${suggested}`, count]));
  audit.right.forEach((count, c) => counts.set(`${c} ${c}`, count));
  const largest = audit.confusions[0]?.[2] ?? 1;
  const isSmall = shown.length <= 12;
  const cell = (given, suggested) => {
    const count = counts.get(`${given} ${suggested}`) ?? 0;
    const share = audit.wrong[given].examples ? count / audit.wrong[given].examples : 0;
    const said =
      `given ${audit.classes[given]}, should be ${audit.classes[suggested]}: ` +
      `${asNumber(count)} examples, ${asShare(share)} of the given class`;
    if (Math.round(count) === 0) return make("td", { title: said });
    const text = [isSmall ? asEstimate(count) : asCount(count), isSmall ? make("small", {}, asShare(share)) : null];
    if (given === suggested) return make("td", { class: "diagonal", title: said }, text);
    return make(
      "td",
      { "--heat": Math.sqrt(count / largest).toFixed(3) },
      make("button", { type: "button", title: said, click: () => showPair(given, suggested) }, text),
    );
  };
  const heading = (c, scope) => make("th", { scope, title: audit.classes[c] }, make("span", {}, audit.classes[c]));
  const table = make(
    "table",
    { class: isSmall ? "matrix" : "matrix dense" },
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("td", { class: "corner" }, "given \u2193 should be \u2192"),
        shown.map((c) => heading(c, "col")),
      ),
    ),
    make(
      "tbody",
      {},
      shown.map((given) =>
        make(
          "tr",
          {},
          heading(given, "row"),
          shown.map((to) => cell(given, to)),
        ),
      ),
    ),
  );
  const left = audit.classes.length - shown.length;
  const note = left
    ? ` Of ${audit.classes.length} classes, the ${shown.length} with the most wrong labels are shown.`
    : "";
  return figure(
    "Noise matrix",
    "Estimated number of examples of each given class (row) that should be of each class (column). The stronger the " +
      `colour, the more; the grey diagonal is right. A number opens its examples.${note}`,
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Noise matrix" }, table),
  );
}

/** All classes, or of many those that take part in the most confusions. */
function shownClasses(audit) {
  const all = audit.classes.map((_, c) => c);
  if (all.length <= WIDEST) return all;
  const sums = all.map(() => 0);
  for (const [given, suggested, count] of audit.confusions) {
    sums[given] += count;
    sums[suggested] += count;
  }
  return all
    .sort((a, b) => sums[b] - sums[a])
    .slice(0, WIDEST)
    .sort((a, b) => a - b);
}
