/* Charts as SVG, drawn anew when their width changes. */

const MARGIN = { top: 10, right: 12, bottom: 30, left: 46 };

/** A figure: a title, a line on what it means, then the content. */
function figure(title, meaning, ...content) {
  return make(
    "figure",
    { class: "figure" },
    make("figcaption", {}, make("h3", {}, title), make("p", { class: "soft" }, meaning)),
    ...content,
  );
}

/** An SVG as wide as its place; `paint(width, height)` gives its elements. */
function chart(description, height, paint) {
  const image = draw("svg", { class: "chart", role: "img", "aria-label": description });
  const repaint = (width) => {
    image.setAttribute("viewBox", `0 0 ${width} ${height}`);
    image.replaceChildren(...paint(width, height));
  };
  // what is printed before it was ever seen has no width yet
  repaint(520);
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width > 0) repaint(width);
  }).observe(image);
  return image;
}

/** Round numbers between two limits, some `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** A share at an axis, "5 %". */
const asTick = (share) => `${asNumber(100 * share)}\u202f%`;

const isWhole = (value) => Math.abs(value - Math.round(value)) < 1e-6;

/** Both axes between the limits; `asText` writes the values of the vertical one, `isCount` says that x is whole. */
function axes(width, height, x, y, asText, { title = "", isCount = false } = {}) {
  const scale = scales(width, height, x, y);
  const bottom = height - MARGIN.bottom;
  const values = ticks(...x, Math.max(3, width / 90)).filter((value) => !isCount || isWhole(value));
  const across = values.map((value) =>
    draw("text", { x: scale.x(value), y: bottom + 18, "text-anchor": "middle" }, asNumber(value)),
  );
  const up = ticks(...y, 4).map((value) => [
    draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(value), y2: scale.y(value) }),
    draw("text", { x: MARGIN.left - 8, y: scale.y(value) + 4, "text-anchor": "end" }, asText(value)),
  ]);
  const corner = { class: "axis-title", x: width - MARGIN.right, y: bottom - 6, "text-anchor": "end" };
  return [...up.flat(), ...across, draw("text", corner, title)];
}

function scales(width, height, x, y) {
  const across = (width - MARGIN.left - MARGIN.right) / (x[1] - x[0]);
  const up = (height - MARGIN.top - MARGIN.bottom) / (y[1] - y[0]);
  return {
    x: (value) => MARGIN.left + (value - x[0]) * across,
    y: (value) => height - MARGIN.bottom - (value - y[0]) * up,
  };
}

/** Names of what is drawn, each beside a sample of its line and with a figure. */
function legend(entries) {
  return make(
    "ul",
    { class: "legend" },
    entries.map(({ name, look, value }) =>
      make(
        "li",
        {},
        draw(
          "svg",
          { class: "sample", viewBox: "0 0 22 10", "aria-hidden": "true" },
          draw("line", { class: look, x1: 1, x2: 21, y1: 5, y2: 5 }),
        ),
        name,
        make("span", { class: "number" }, value),
      ),
    ),
  );
}

/** Histograms of groups over each other, each as shares of its own examples. */
function histogram(title, meaning, { edges, groups, value }) {
  if (edges.length === 0) {
    const said = value === undefined ? "There are no values." : `It is ${asNumber(value)} for every example.`;
    return figure(title, meaning, make("p", { class: "notice" }, said));
  }
  const totals = groups.map(({ counts }) => counts.reduce((sum, count) => sum + count, 0));
  const shares = groups.map(({ counts }, g) => counts.map((count) => count / totals[g]));
  const x = [edges[0], edges.at(-1)];
  const y = [0, Math.max(...shares.flat()) * 1.05];
  const paint = (width, height) => {
    const scale = scales(width, height, x, y);
    const areas = groups.map(({ wrong }, g) => {
      const steps = shares[g].map((share, b) => `L${scale.x(edges[b])} ${scale.y(share)}H${scale.x(edges[b + 1])}`);
      const path = `M${scale.x(x[0])} ${scale.y(0)}${steps.join("")}L${scale.x(x[1])} ${scale.y(0)}`;
      return draw("path", { class: `area ${wrong ? "wrong" : "right"}`, d: path });
    });
    const columns = edges.slice(1).map((edge, b) =>
      draw(
        "rect",
        {
          class: "hover",
          x: scale.x(edges[b]),
          y: MARGIN.top,
          width: scale.x(edge) - scale.x(edges[b]),
          height: height - MARGIN.top - MARGIN.bottom,
        },
        draw(
          "title",
          {},
          `${asNumber(edges[b])} to ${asNumber(edge)}\n` +
            groups.map(({ name, counts }, g) => `${name}: ${asCount(counts[b])} (${asShare(shares[g][b])})`).join("\n"),
        ),
      ),
    );
    return [...axes(width, height, x, y, asTick), ...areas, ...columns];
  };
  const entries = groups.map(({ name, wrong }, g) => ({
    name,
    look: wrong ? "wrong" : "right",
    value: asCount(totals[g]),
  }));
  return figure(title, meaning, legend(entries), chart(`Histogram: ${title}`, 220, paint));
}

/** Lines over the epochs. `lines`: name, look, values, null where there is none; `stages`: the name of each epoch's. */
function curves(title, meaning, lines, stages, limits, asText, asTickText = asText) {
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const x = [1, Math.max(2, stages.length)];
  const y = limits ?? [Math.min(0, ...values), Math.max(...values) * 1.05];
  const paint = (width, height) => {
    const scale = scales(width, height, x, y);
    const point = (value, k) => [scale.x(k + 1), scale.y(Math.min(Math.max(value, y[0]), y[1]))];
    const paths = lines.map(({ look, values: of }) => {
      const parts = of.map((value, k) =>
        value === null ? "" : `${k > 0 && of[k - 1] !== null ? "L" : "M"}${point(value, k).join(" ")}`,
      );
      return draw("path", { class: `line ${look}`, d: parts.join("") });
    });
    const dots = lines.flatMap(({ name, look, values: of }) =>
      of.map((value, k) => {
        if (value === null) return null;
        const [cx, cy] = point(value, k);
        const isLone = of.length === 1;
        return draw(
          "circle",
          { class: isLone ? `dot ${look}` : "hover", cx, cy, r: isLone ? 3 : 5 },
          draw("title", {}, `epoch ${k + 1}, ${name}: ${asText(value)}`),
        );
      }),
    );
    const borders = stages.flatMap((stage, k) => {
      if (k === 0 || stage === stages[k - 1]) return [];
      const at = scale.x(k + 0.5);
      return [
        draw("line", { class: "border", x1: at, x2: at, y1: MARGIN.top, y2: height - MARGIN.bottom }),
        draw("text", { class: "axis-title", x: at + 5, y: MARGIN.top + 8 }, stage),
      ];
    });
    return [
      ...axes(width, height, x, y, asTickText, { title: "epoch", isCount: true }),
      ...borders,
      ...paths,
      ...dots.filter((dot) => dot !== null),
    ];
  };
  const entries = lines.map(({ name, look, values: of }) => ({
    name,
    look,
    value: asText(of.findLast((value) => value !== null)),
  }));
  const said = entries.map(({ name, value }) => `${name} ${value} in the end`).join(", ");
  return figure(title, meaning, legend(entries), chart(`${title} by epoch: ${said}`, 240, paint));
}
