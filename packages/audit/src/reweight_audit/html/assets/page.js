/* Starts the page: parts, theme, keys, decisions. */

const audit = JSON.parse(byId("audit").textContent);
const decisions = new Decisions(audit.fingerprint, audit.classes);
const VIEWS = ["examples", "labels", "run"];
const filled = new Set();

const details = new Details(byId("selected"), audit, decisions, decide);
const gallery = new Gallery(audit, decisions, {
  place: byId("gallery"),
  pagers: document.querySelectorAll(".pager"),
  found: byId("found"),
  onSelect: (at) => details.show(at),
  onDecide: decide,
});
const filters = new Filters(byId("filters"), audit, decisions, () => gallery.show(filters.passing()));

const KEYS = [
  ["Arrows", "go to another example"],
  ["Home, End", "to the first, the last"],
  ["n, p", "next page, page before"],
  ["k", "keep the label"],
  ["r", "relabel to the suggested class"],
  ["d", "drop the example"],
  details.menu === null ? ["digits", "relabel to that class"] : ["c", "choose another class, then Enter"],
  ["u", "undo: forget the decision"],
  ["?", "these keys"],
];

/** Decide of an example; `toggle` takes the same decision back, `label` is a class other than the suggested one. */
function decide(at, kind, { label = null, toggle = false } = {}) {
  const { id, name, given, suggested } = audit.listed;
  const before = decisions.get(id[at]);
  const to = label ?? audit.classes[suggested[at]];
  if (toggle && before?.decision === kind) {
    decisions.remove(id[at]);
    tell(`${name[at]}: no decision`);
  } else if (kind === "relabel" && to === audit.classes[given[at]]) {
    tell(`${name[at]} has this label already: choose another class, or keep it.`);
    return false;
  } else {
    const made = { id: id[at], name: name[at], decision: kind, ...(kind === "relabel" ? { label: to } : {}) };
    decisions.set(made);
    tell(`${name[at]}: ${asWords(made)}`);
  }
  gallery.mark();
  showTally();
  return true;
}

function tell(text) {
  byId("message").textContent = text;
}

function showTally() {
  const tally = decisions.tally();
  byId("tally").replaceChildren(
    ...KINDS.map((kind) => make("span", { "data-kind": kind }, make("b", {}, asCount(tally[kind])), ` ${kind}`)),
  );
  const none = KINDS.every((kind) => tally[kind] === 0);
  byId("export").disabled = byId("forget").disabled = none;
  byId("kept").textContent = decisions.isKept
    ? "Kept in this browser; the file is for reweight apply."
    : "This browser keeps nothing for this page: export your decisions before you leave it.";
}

function exportDecisions() {
  const file = new Blob([decisions.asText(2), "\n"], { type: "application/json" });
  const link = make("a", { href: URL.createObjectURL(file), download: "decisions.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function importDecisions(event) {
  const input = event.target;
  const [file] = input.files;
  if (!file) return;
  try {
    const number = decisions.add(await file.text());
    tell(`${counted(number, "decision")} imported.`);
  } catch (error) {
    tell(`${file.name}: ${error.message}.`);
  }
  // so that the same file can be chosen again
  input.value = "";
  gallery.mark();
  showTally();
}

function press(event) {
  if (event.target === details.menu && ["Enter", "Escape"].includes(event.key)) {
    event.preventDefault();
    gallery.move(event.key === "Enter" ? 1 : 0);
    return;
  }
  const isTyping = event.target.closest?.("input, select, textarea, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") byId("keys").showModal();
  else if (byId("examples-view").hidden || gallery.current === null || !pressInGallery(event.key)) return;
  event.preventDefault();
}

/** Do what a key means among the examples, or return false if it means nothing. */
function pressInGallery(key) {
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: gallery.columns,
    ArrowUp: -gallery.columns,
    Home: -Infinity,
    End: Infinity,
  };
  const kind = KINDS.find((name) => name[0] === key);
  const at = gallery.current;
  const classOfDigit =
    details.menu === null ? audit.classes.find((_, c) => digitOf(c, audit.classes) === key) : undefined;
  const onwards = (isDone) => isDone && gallery.move(1);
  if (key in steps) gallery.move(steps[key]);
  else if (kind) onwards(decide(at, kind));
  else if (classOfDigit !== undefined) onwards(decide(at, "relabel", { label: classOfDigit }));
  else if (key === "u") {
    decisions.remove(audit.listed.id[at]);
    gallery.mark();
    showTally();
  } else if (key === "n" || key === "p") gallery.turn(key === "n" ? 1 : -1);
  else if (key === "c" && details.menu) details.menu.focus();
  else return false;
  return true;
}

/** Show the part that the address names; another place in the page changes nothing. */
function route() {
  const view = location.hash.slice(1);
  if (VIEWS.includes(view)) showView(view);
  else if (view === "") showView(VIEWS[0]);
}

function showView(view) {
  for (const name of VIEWS) byId(`${name}-view`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  fillView(view);
  window.scrollTo(0, 0);
}

/** Draw a part's figures when it is first needed. */
function fillView(view) {
  if (filled.has(view)) return;
  filled.add(view);
  if (view === "labels") showLabels(byId("labels-figures"), audit, showPair);
  if (view === "run") showRun(byId("run-figures"), audit);
}

function showPair(given, suggested) {
  filters.showPair(given, suggested);
  gallery.show(filters.passing());
  location.hash = "#examples";
}

/** Follow the browser's theme until the switch is used; then the choice is remembered. */
function startTheme() {
  const place = "reweight-audit theme";
  const root = document.documentElement;
  const browsers = matchMedia("(prefers-color-scheme: dark)");
  const other = () => ((root.dataset.theme ?? (browsers.matches ? "dark" : "light")) === "dark" ? "light" : "dark");
  const label = () => (byId("theme").textContent = other() === "dark" ? "Dark theme" : "Light theme");
  try {
    const chosen = localStorage.getItem(place);
    if (chosen !== null) root.dataset.theme = chosen;
  } catch {
    // then none was remembered
  }
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = other();
    label();
    try {
      localStorage.setItem(place, root.dataset.theme);
    } catch {
      // then it is forgotten
    }
  });
  browsers.addEventListener("change", label);
  label();
}

function showLead() {
  const { wrongOfAll: wrong, examples, listed, pictures } = audit;
  byId("lead").append(
    "About ",
    make("b", {}, asShare(wrong.value)),
    ` of the labels are probably wrong (${asInterval(wrong)}): some `,
    make("b", {}, asCount(wrong.value * examples)),
    ` of ${asCount(examples)} training examples.`,
  );
  const limits = [];
  if (listed.id.length < examples) limits.push(`The ${asCount(listed.id.length)} most suspicious are listed`);
  if (pictures.length && pictures.length < listed.id.length)
    limits.push(`the first ${asCount(pictures.length)} have pictures`);
  const said = limits.join("; ");
  byId("source").append(
    `Run ${audit.run}. `,
    audit.wrongInFact === null ? "" : `By the true labels it is ${asShare(audit.wrongInFact)}. `,
    audit.calibrated === null ? "The probabilities are not calibrated: trust the order more. " : "",
    said ? `${said[0].toUpperCase()}${said.slice(1)}.` : "",
  );
  document.title = `Label audit of ${audit.run}`;
}

function start() {
  startTheme();
  showLead();
  byId("key-list").append(...KEYS.map(([key, means]) => asTerm(make("kbd", {}, key), means)));
  byId("open-keys").addEventListener("click", () => byId("keys").showModal());
  byId("export").addEventListener("click", exportDecisions);
  byId("import").addEventListener("change", importDecisions);
  byId("forget").addEventListener("click", () => {
    if (!confirm("Forget all decisions about these data? Export them first to keep a copy.")) return;
    decisions.forget();
    gallery.mark();
    showTally();
  });
  document.addEventListener("keydown", press);
  window.addEventListener("hashchange", route);
  window.addEventListener("beforeprint", () => VIEWS.forEach(fillView));
  window.addEventListener("storage", (event) => {
    if (event.key !== decisions.place) return;
    decisions.load();
    gallery.mark();
    showTally();
  });
  showTally();
  showView(VIEWS[0]);
  route();
  gallery.show(filters.passing());
}

start();
