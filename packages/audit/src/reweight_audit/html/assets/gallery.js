/* A page of the examples that pass the filters, and the selection among them. */

const PAGE = 60;

/** Shows examples page by page; one of them is selected, and keyboard and mouse decide of it. */
class Gallery {
  constructor(audit, decisions, { place, pagers, found, onSelect, onDecide }) {
    Object.assign(this, { audit, decisions, place, pagers, found, onSelect, onDecide });
    this.shown = [];
    this.selected = 0;
    this.cards = [];
    place.classList.toggle("as-list", audit.pictures.length === 0);
  }

  /** Show these positions of the list, the first selected. */
  show(shown) {
    this.shown = shown;
    this.selected = 0;
    this.render();
  }

  get page() {
    return Math.floor(this.selected / PAGE);
  }

  get pages() {
    return Math.max(1, Math.ceil(this.shown.length / PAGE));
  }

  /** The position in the list of the selected example, or null without one. */
  get current() {
    return this.shown[this.selected] ?? null;
  }

  render() {
    const first = this.page * PAGE;
    this.cards = this.shown.slice(first, first + PAGE).map((at, k) => this.card(at, first + k));
    const empty = make("p", { class: "notice" }, "No example passes these filters.");
    this.place.replaceChildren(...(this.cards.length ? this.cards : [empty]));
    const of = this.audit.listed.id.length;
    const some = this.shown.length < of ? `${asCount(this.shown.length)} of ` : "";
    this.found.textContent = `${some}${counted(of, "example")}, the most suspicious first`;
    for (const pager of this.pagers) this.fillPager(pager);
    this.mark();
  }

  fillPager(pager) {
    const turn = (step, title, sign) =>
      make(
        "button",
        {
          type: "button",
          "aria-label": title,
          disabled: this.page + step < 0 || this.page + step >= this.pages,
          click: () => this.turn(step),
        },
        sign,
      );
    pager.replaceChildren(
      turn(-1, "Previous page", "\u2039"),
      make("span", {}, `Page ${asCount(this.page + 1)} of ${asCount(this.pages)}`),
      turn(1, "Next page", "\u203a"),
    );
  }

  turn(step) {
    const page = Math.min(Math.max(this.page + step, 0), this.pages - 1);
    if (page === this.page) return;
    this.selected = page * PAGE;
    this.render();
    this.place.scrollIntoView({ block: "start" });
  }

  card(at, index) {
    const { name, given, probability } = this.audit.listed;
    const picture = this.audit.pictures[at];
    const choices = KINDS.map((kind) =>
      make(
        "button",
        { type: "button", tabindex: -1, "data-kind": kind, click: () => this.onDecide(at, kind, { toggle: true }) },
        kind,
      ),
    );
    const list = this.audit.pictures.length === 0;
    return make(
      "article",
      { class: "card", tabindex: -1, click: () => this.select(index), focus: () => this.select(index) },
      list ? null : make("div", { class: "picture" }, picture ? make("img", { src: picture, alt: "" }) : name[at]),
      list ? make("p", { class: "name" }, name[at]) : null,
      make(
        "p",
        { class: "labels" },
        make("span", { class: "given" }, this.audit.classes[given[at]]),
        make("span", { class: "to", "aria-hidden": "true" }, " \u2192 "),
        make("span", { class: "suggested" }),
      ),
      make(
        "p",
        { class: "chance", "--share": probability[at] ?? 0 },
        make("span", { class: "scale", "aria-hidden": "true" }),
        make("span", {}, asProbability(probability[at])),
      ),
      make("div", { class: "choices" }, choices),
    );
  }

  /** Write the decisions of the page's cards into them, and mark the selected one. */
  mark() {
    const first = this.page * PAGE;
    this.cards.forEach((card, k) => this.markCard(card, this.shown[first + k], first + k === this.selected));
    this.onSelect(this.current);
  }

  markCard(card, at, isSelected) {
    const { id, name, given, suggested, probability } = this.audit.listed;
    const decision = this.decisions.get(id[at]);
    const to = decision?.label ?? this.audit.classes[suggested[at]];
    card.querySelector(".suggested").textContent = to;
    card.classList.toggle("same", this.audit.classes[given[at]] === to);
    card.classList.toggle("is-selected", isSelected);
    card.tabIndex = isSelected ? 0 : -1;
    if (decision) card.dataset.decision = decision.decision;
    else delete card.dataset.decision;
    for (const button of card.querySelectorAll(".choices button")) {
      button.setAttribute("aria-pressed", button.dataset.kind === decision?.decision);
    }
    const said = decision ? `, decided: ${asWords(decision)}` : "";
    card.setAttribute(
      "aria-label",
      `${name[at]}: given ${this.audit.classes[given[at]]}, suggested ${this.audit.classes[suggested[at]]}, ` +
        `probability ${asProbability(probability[at])}${said}`,
    );
  }

  /** Select an example by its place among the shown ones. */
  select(index) {
    if (index === this.selected || index < 0 || index >= this.shown.length) return;
    const before = this.page;
    this.selected = index;
    if (this.page === before) this.mark();
    else this.render();
  }

  /** Go some examples on, over the page's end too, and put the focus there. */
  move(step) {
    this.select(Math.min(Math.max(this.selected + step, 0), this.shown.length - 1));
    const card = this.cards[this.selected % PAGE];
    card?.focus({ preventScroll: true });
    card?.scrollIntoView({ block: "nearest" });
  }

  /** The number of cards in a row. */
  get columns() {
    const other = this.cards.findIndex((card) => card.offsetTop !== this.cards[0].offsetTop);
    return other === -1 ? this.cards.length : other;
  }
}

function asWords({ decision, label }) {
  return decision === "relabel" ? `relabel to ${label}` : decision;
}
