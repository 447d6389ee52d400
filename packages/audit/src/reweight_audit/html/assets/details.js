/* The selected example: what is known of it, and what can be decided. */

/** The digit key of a class where there are ten at most: its name, if all are named by digits; else 1 is the first. */
function digitOf(c, classes) {
  return classes.every((name) => /^\d$/.test(name)) ? classes[c] : String((c + 1) % 10);
}

/** Fill the panel with the example at a position of the list, or say that none is selected. */
function showDetails(panel, audit, decisions, at, onDecide) {
  if (at === null) {
    panel.replaceChildren(make("p", { class: "soft" }, "No example is selected."));
    return;
  }
  const listed = audit.listed;
  const decision = decisions.get(listed.id[at]);
  const picture = audit.pictures[at];
  const held = panel.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  panel.replaceChildren(
    picture ? make("img", { class: "large", src: picture, alt: `Picture of ${listed.name[at]}` }) : "",
    make("h3", { class: "name" }, listed.name[at], make("span", { class: "soft" }, ` position ${listed.id[at]}`)),
    facts(audit, at),
    make(
      "div",
      { class: "decide", role: "group", "aria-label": "Decide" },
      KINDS.map((kind) =>
        make(
          "button",
          {
            type: "button",
            "data-kind": kind,
            "data-key": kind,
            "aria-pressed": String(decision?.decision === kind),
            click: () => onDecide(at, kind, { toggle: true }),
          },
          make("span", {}, kind),
          make("kbd", {}, kind[0]),
        ),
      ),
    ),
    otherClasses(audit, at, decision, onDecide),
  );
  // the buttons are new ones: whoever tabs through them must not be thrown out
  if (held !== undefined) panel.querySelector(`[data-key="${held}"]`)?.focus();
}

function facts(audit, at) {
  const listed = audit.listed;
  const rows = [
    ["Given label", audit.classes[listed.given[at]]],
    ["Suggested", audit.classes[listed.suggested[at]]],
    ["Wrong with probability", asProbability(listed.probability[at])],
    ["Mean weight", asNumber(listed.weight[at])],
    [audit.signals[0].name, asNumber(listed.signal[at])],
  ];
  if (listed.true[at] >= 0) rows.splice(2, 0, ["True label", audit.classes[listed.true[at]]]);
  return make(
    "dl",
    { class: "facts" },
    rows.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value))),
  );
}

/** Buttons for ten classes at most, a menu for more. */
function otherClasses(audit, at, decision, onDecide) {
  const { classes, listed } = audit;
  const choose = (c) => onDecide(at, "relabel", { label: classes[c] });
  if (classes.length > 10) {
    const options = classes.map((name, c) => make("option", { value: c, selected: decision?.label === name }, name));
    return make(
      "label",
      { class: "field other" },
      make("span", {}, "Relabel to another class ", make("kbd", {}, "c")),
      make(
        "select",
        {
          id: "other-class",
          "data-key": "other",
          change: (event) => event.target.value !== "" && choose(Number(event.target.value)),
        },
        make("option", { value: "" }, "choose\u2026"),
        options,
      ),
    );
  }
  return make(
    "div",
    { class: "other", role: "group", "aria-label": "Relabel to another class" },
    make("p", { class: "soft" }, "Relabel to"),
    classes.map((name, c) =>
      make(
        "button",
        {
          type: "button",
          "data-key": `class-${c}`,
          class: c === listed.suggested[at] ? "is-suggested" : null,
          "aria-pressed": String(decision?.label === name),
          disabled: c === listed.given[at],
          click: () => choose(c),
        },
        make("kbd", {}, digitOf(c, classes)),
        make("span", {}, name),
      ),
    ),
  );
}
