/* Elements, and numbers as text. What comes from the data becomes text or an attribute's value, never markup. */

/** Make an HTML element: a function as a value is a listener, null or false leaves the attribute out. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

/** A term and its text, of a list of such. */
const asTerm = (term, text) => make("div", {}, make("dt", {}, term), make("dd", {}, text));

const byId = (id) => document.getElementById(id);

const asCount = (() => {
  const format = new Intl.NumberFormat("en");
  return (number) => format.format(Math.round(number));
})();

/** "1 example", "2,000 examples". */
const counted = (number, word) => `${asCount(number)} ${word}${Math.round(number) === 1 ? "" : "s"}`;

/** 0.1234 as "12.3 %". */
const asShare = (share) => `${(100 * share).toFixed(share < 0.9995 ? 1 : 0)}\u202f%`;

/** An estimated number of examples, to a tenth where it is small. */
const asEstimate = (number) => (number < 10 ? number.toFixed(1) : asCount(number));

/** A share with its interval. */
const asInterval = ({ low, high }) => `${(100 * low).toFixed(1)}\u2060\u2013\u2060${(100 * high).toFixed(1)}\u202f%`;

/** A probability as "0.97"; 0.00 and 1.00 only for what is exactly that. */
function asProbability(p) {
  if (p === null) return "unknown";
  if (p > 0 && p < 0.005) return "<0.01";
  return p < 1 && p >= 0.995 ? ">0.99" : p.toFixed(2);
}

/** A number of any size with three digits that count. */
function asNumber(number) {
  if (number === null) return "unknown";
  const size = Math.abs(number);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return number.toExponential(2);
  return String(Number(number.toPrecision(3)));
}
