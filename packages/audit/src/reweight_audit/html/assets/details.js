/* The selected example: what is known of it, and what can be decided. */

/** The most classes that have a button and a digit each; more are in a menu. */
const DIGITS = 10;

/** The digit key of a class: its name, if all are named by digits; else 1 is the first. */
function digitOf(c, classes) {
  return classes.every((name) => /^\d$/.test(name)) ? classes[c] : String((c + 1) % 10);
}

/** The panel of the selected example. Its controls stay, so that they keep the focus while examples change. */
class Details {
  constructor(panel, audit, decisions, onDecide) {
    Object.assign(this, { panel, audit, decisions, onDecide });
    this.at = null;
    this.picture = make("img", { class: "large", alt: "", hidden: true });
    this.name = make("h3", { class: "name" });
    this.facts = make("dl", { class: "facts" });
    this.kinds = KINDS.map((kind) => this.kindButton(kind));
    const hasButtons = audit.classes.length <= DIGITS;
    this.menu = hasButtons ? null : this.classMenu();
    this.buttons = hasButtons ? audit.classes.map((_, c) => this.classButton(c)) : [];
    panel.append(
      this.picture,
      this.name,
      this.facts,
      make("div", { class: "decide", role: "group", "aria-label": "Decide" }, this.kinds),
      hasButtons
        ? make(
            "div",
            { class: "other", role: "group", "aria-label": "Relabel to another class" },
            make("p", { class: "soft" }, "Relabel to"),
            this.buttons,
          )
        : make(
            "label",
            { class: "field other" },
            make("span", {}, "Relabel to another class ", make("kbd", {}, "c")),
            this.menu,
          ),
    );
  }

  kindButton(kind) {
    const decide = () => this.onDecide(this.at, kind, { toggle: true });
    return make(
      "button",
      { type: "button", "data-kind": kind, click: decide },
      make("span", {}, kind),
      make("kbd", {}, kind[0]),
    );
  }

  classButton(c) {
    const { classes } = this.audit;
    return make(
      "button",
      { type: "button", click: () => this.choose(c) },
      make("kbd", {}, digitOf(c, classes)),
      make("span", {}, classes[c]),
    );
  }

  classMenu() {
    return make(
      "select",
      { change: () => this.menu.value !== "" && this.choose(Number(this.menu.value)) },
      make("option", { value: "" }, "choose\u2026"),
      this.audit.classes.map((name, c) => make("option", { value: c }, name)),
    );
  }

  choose(c) {
    this.onDecide(this.at, "relabel", { label: this.audit.classes[c] });
  }

  /** Show the example at a position of the list; null for none. */
  show(at) {
    this.at = at;
    this.panel.hidden = at === null;
    if (at === null) return;
    const { classes, listed, pictures } = this.audit;
    const decision = this.decisions.get(listed.id[at]);
    this.picture.hidden = pictures[at] === undefined;
    if (pictures[at] !== undefined) this.picture.src = pictures[at];
    this.picture.alt = `Picture of ${listed.name[at]}`;
    // what has no name of its own is named by its position
    const isNamed = listed.name[at] !== String(listed.id[at]);
    const position = make("span", { class: "soft" }, ` position ${listed.id[at]}`);
    this.name.replaceChildren(listed.name[at], ...(isNamed ? [position] : []));
    this.facts.replaceChildren(...this.known(at).map(([term, text]) => asTerm(term, text)));
    for (const button of this.kinds) button.setAttribute("aria-pressed", button.dataset.kind === decision?.decision);
    this.buttons.forEach((button, c) => {
      button.disabled = c === listed.given[at];
      button.classList.toggle("is-suggested", c === listed.suggested[at]);
      button.setAttribute("aria-pressed", classes[c] === decision?.label);
    });
    if (this.menu) this.menu.value = decision?.label === undefined ? "" : classes.indexOf(decision.label);
  }

  /** What is known of an example, as terms and texts. */
  known(at) {
    const { classes, listed, signals } = this.audit;
    const isKnown = listed.true[at] >= 0;
    return [
      ["Given label", classes[listed.given[at]]],
      ["Suggested", classes[listed.suggested[at]]],
      ...(isKnown ? [["True label", classes[listed.true[at]]]] : []),
      ["Wrong with probability", asProbability(listed.probability[at])],
      ["Mean weight", asNumber(listed.weight[at])],
      [signals[0].name, asNumber(listed.signal[at])],
    ];
  }
}
