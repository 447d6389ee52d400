/* Which examples are shown. */

/** The filter form: it says which of the listed examples are shown, and tells when that changes. */
class Filters {
  constructor(form, audit, decisions, onChange) {
    this.form = form;
    this.audit = audit;
    this.decisions = decisions;
    const { given, suggested } = audit.listed;
    form.append(
      this.menu("given", "Given label", classOptions(audit.classes, given)),
      this.menu("suggested", "Suggested label", classOptions(audit.classes, suggested)),
      this.menu("decision", "Decision", [
        ["", "any or none"],
        ["none", "none yet"],
        ["some", "any"],
        ...KINDS.map((kind) => [kind, kind]),
      ]),
      this.range(),
      field("Name has", make("input", { name: "name", type: "search", autocomplete: "off" })),
      make("button", { type: "reset", class: "quiet" }, "Show all"),
    );
    form.addEventListener("input", onChange);
    // the fields are emptied after the event
    form.addEventListener("reset", () => setTimeout(onChange));
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  menu(name, title, options) {
    return field(
      title,
      make(
        "select",
        { name },
        options.map(([value, text]) => make("option", { value }, text)),
      ),
    );
  }

  range() {
    const limit = (name, title, value) =>
      make("input", { name, type: "number", min: 0, max: 1, step: 0.05, value, "aria-label": title });
    return make(
      "fieldset",
      { class: "field" },
      make("legend", {}, "Probability"),
      limit("least", "Probability, at least", 0),
      " to ",
      limit("most", "Probability, at most", 1),
    );
  }

  /** Show one pair of classes, whatever else was asked for before. */
  showPair(given, suggested) {
    this.form.reset();
    this.form.elements.given.value = given ?? "";
    this.form.elements.suggested.value = suggested ?? "";
  }

  /** Positions in the list of the examples that pass, in its order. */
  passing() {
    const { id, name, given, suggested, probability } = this.audit.listed;
    const wanted = Object.fromEntries(new FormData(this.form));
    const isClass = (labels, value) => (value === "" ? () => true : (at) => labels[at] === Number(value));
    const isGiven = isClass(given, wanted.given);
    const isSuggested = isClass(suggested, wanted.suggested);
    const isDecided = this.decided(wanted.decision);
    const least = wanted.least === "" ? 0 : Number(wanted.least);
    const most = wanted.most === "" ? 1 : Number(wanted.most);
    const part = wanted.name.trim().toLowerCase();
    const found = [];
    for (let at = 0; at < id.length; at++) {
      if (probability[at] < least || probability[at] > most || !isGiven(at) || !isSuggested(at)) continue;
      if (part !== "" && !name[at].toLowerCase().includes(part)) continue;
      if (isDecided(id[at])) found.push(at);
    }
    return found;
  }

  decided(wanted) {
    if (wanted === "") return () => true;
    if (wanted === "none") return (id) => this.decisions.get(id) === null;
    if (wanted === "some") return (id) => this.decisions.get(id) !== null;
    return (id) => this.decisions.get(id)?.decision === wanted;
  }
}

function field(title, control) {
  return make("label", { class: "field" }, make("span", {}, title), control);
}

/** Options of a class menu: the classes that occur, each with its number of examples. */
function classOptions(classes, labels) {
  const counts = new Array(classes.length).fill(0);
  for (const label of labels) counts[label] += 1;
  const occurring = classes.map((name, c) => [String(c), `${name} (${asCount(counts[c])})`]);
  return [["", "any"], ...occurring.filter((_, c) => counts[c] > 0)];
}
