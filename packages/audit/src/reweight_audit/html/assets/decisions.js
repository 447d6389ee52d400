/* What the user decided, and the file that it is exported to. */

const FILE_FORMAT = 1;
const KINDS = ["keep", "relabel", "drop"];

/**
 * Decisions by the example's id: {id, name, decision, label}, the label (a class name) for "relabel" only.
 * The browser keeps them under the fingerprint of the data, so that they outlive a reload and serve a later audit.
 */
class Decisions {
  constructor(fingerprint, classes) {
    this.fingerprint = fingerprint;
    this.classes = new Set(classes);
    this.place = `reweight-audit ${fingerprint}`;
    this.isKept = true;
    this.load();
  }

  load() {
    this.byId = new Map();
    try {
      const text = localStorage.getItem(this.place);
      if (text !== null) this.byId = this.read(text);
    } catch {
      this.isKept = false;
    }
  }

  get(id) {
    return this.byId.get(id) ?? null;
  }

  set(decision) {
    this.byId.set(decision.id, decision);
    this.save();
  }

  remove(id) {
    this.byId.delete(id);
    this.save();
  }

  forget() {
    this.byId.clear();
    this.save();
  }

  /** Add those of a file, which win over what is here, and return how many they are. */
  add(text) {
    const read = this.read(text);
    for (const [id, decision] of read) this.byId.set(id, decision);
    this.save();
    return read.size;
  }

  save() {
    try {
      localStorage.setItem(this.place, this.asText());
      this.isKept = true;
    } catch {
      this.isKept = false;
    }
  }

  /** How many there are of each kind. */
  tally() {
    const found = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
    for (const { decision } of this.byId.values()) found[decision] += 1;
    return found;
  }

  /** The content of decisions.json. */
  asText(indent) {
    const decisions = [...this.byId.values()].sort((a, b) => a.id - b.id);
    return JSON.stringify({ format: FILE_FORMAT, fingerprint: this.fingerprint, decisions }, null, indent);
  }

  /** Read such a file; an Error says in words what is wrong with it. */
  read(text) {
    let file;
    try {
      file = JSON.parse(text);
    } catch {
      throw new Error("this is not a JSON file");
    }
    if (file?.format !== FILE_FORMAT || !Array.isArray(file.decisions)) {
      throw new Error("this is not a file of decisions");
    }
    if (file.fingerprint !== this.fingerprint) throw new Error("these decisions are of other data");
    const found = new Map();
    for (const { id, name, decision, label } of file.decisions) {
      if (!Number.isInteger(id) || !KINDS.includes(decision)) throw new Error(`decision of example ${id} is unknown`);
      if (decision === "relabel" && !this.classes.has(label)) throw new Error(`there is no class "${label}"`);
      found.set(id, decision === "relabel" ? { id, name, decision, label } : { id, name, decision });
    }
    return found;
  }
}
