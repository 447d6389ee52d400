"""Opening what a stranger gives executes nothing, shows nothing but text, and writes nowhere else."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

SCRIPT, IMAGE, CLOSING = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><b>"


def write_table(folder, classes, rows=30):
    folder.mkdir()
    for part in ("train", "test"):
        lines = [
            f'{row % 7},{row % 5},"{classes[row % len(classes)].replace(chr(34), 2 * chr(34))}"' for row in range(rows)
        ]
        (folder / f"{part}.csv").write_text("\n".join(["a,b,label", *lines]) + "\n", encoding="utf-8")


class Elements(HTMLParser):
    """Counts the elements of a page, and takes the text of its scripts apart."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open = tag == "script"
        if self._open:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            self.scripts[-1] += data


@pytest.fixture
def audited(reweight, tmp_path):
    """Give a function that trains on a table of these classes, and audits the run."""

    def audit(name, classes):
        write_table(tmp_path / f"{name}-table", classes)
        run = tmp_path / name
        options = ("--data", "csv", "--data-root", tmp_path / f"{name}-table", "--model", "linear", "--epochs", 1)
        assert reweight("train", *options, "--out", run, "--quiet").status == 0
        page = tmp_path / f"{name}.html"
        assert reweight("audit", run, "--html", page, "--quiet").status == 0
        return run, page.read_text(encoding="utf-8")

    return audit


def test_names_of_classes_are_text_in_the_report(audited):
    classes = [SCRIPT, IMAGE, CLOSING]
    _, plain = audited("plain", ["x", "y", "z"])
    _, strange = audited("strange", classes)

    usual, found = Elements(plain), Elements(strange)
    assert found.tags == usual.tags
    data = [json.loads(script) for script in found.scripts if script.startswith("{")]
    assert sorted(data[0]["classes"]) == sorted(classes)


def test_names_are_text_in_a_plot(reweight, audited, tmp_path):
    run, _ = audited("plain", ["x", "y"])
    strange = tmp_path / "<script>alert(1)<" / "--><b>"
    strange.parent.mkdir()
    run.rename(strange)

    assert reweight("compare", strange, "--plot", tmp_path / "plot.svg").status == 0

    tags = {element.tag.rpartition("}")[2] for element in ET.parse(tmp_path / "plot.svg").iter()}
    assert not tags & {"script", "b"}


def test_tables_have_cells_as_they_are(reweight, audited, tmp_path):
    run, _ = audited("formulas", ["=1+1", "x"])

    assert reweight("audit", run, "--csv", tmp_path / "found.csv", "--quiet").status == 0

    # other programs read names back, and an apostrophe before them would be another name
    assert ",=1+1," in (tmp_path / "found.csv").read_text(encoding="utf-8")


def test_apply_writes_nowhere_but_into_its_folder(reweight, audited, tmp_path):
    run, _ = audited("plain", ["x", "y"])
    for file in ("samples.json", "audit.json"):
        content = json.loads((run / file).read_text(encoding="utf-8"))
        content["names"] = [f"../../outside-{i}" for i in range(len(content["names"]))]
        (run / file).write_text(json.dumps(content), encoding="utf-8")
    before = {path for path in tmp_path.rglob("*")}

    assert reweight("apply", run, "--out", tmp_path / "fixed").status == 0

    written = {path for path in tmp_path.rglob("*")} - before
    assert written
    assert all(path.is_relative_to(tmp_path / "fixed") for path in written)
    assert not list(tmp_path.parent.glob("outside-*"))


@pytest.mark.parametrize("decision", ["../../x", -1, 10**30, None, [0], {"a": 1}])
def test_decisions_on_what_is_not_there_are_refused(reweight, audited, tmp_path, decision):
    run, _ = audited("plain", ["x", "y"])
    fingerprint = json.loads((run / "audit.json").read_text(encoding="utf-8"))["fingerprint"]
    made = [{"id": decision, "decision": "drop"}]
    content = {"format": 1, "fingerprint": fingerprint, "decisions": made}
    (tmp_path / "decisions.json").write_text(json.dumps(content), encoding="utf-8")

    done = reweight("apply", run, "--out", tmp_path / "fixed", "--decisions", tmp_path / "decisions.json")

    assert done.status == 2
    assert "decision 1 cannot be read" in done.err
    assert not (tmp_path / "fixed").exists()


def test_a_file_that_leaves_the_folder_of_the_data_is_refused(reweight, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        (tmp_path / "data" / "train.csv").write_text(f"file,label\n{name},x\n{name}2,y\n", encoding="utf-8")
        done = reweight("train", "--data", "csv", "--data-root", tmp_path / "data")
        assert done.status == 2
        assert "must be a path inside" in done.err or "leads out of" in done.err


@pytest.mark.parametrize("file", ["config.json", "samples.json", "summary.json", "metrics.jsonl", "audit.json"])
def test_files_that_are_nested_too_deeply_are_refused(reweight, audited, tmp_path, file):
    run, _ = audited("plain", ["x", "y"])
    (run / file).write_text(100_000 * "[" + "\n", encoding="utf-8")
    commands = [
        ("apply", run, "--out", tmp_path / "fixed"),
        ("audit", run, "--quiet", "--html", tmp_path / "again.html"),
        ("compare", run),
        ("inspect", run, "--classes"),
        ("eval", run),
    ]

    ended = [reweight(*command) for command in commands]

    assert {done.status for done in ended} <= {0, 2}
    refused = [done.err for done in ended if done.status == 2]
    assert refused
    assert all(err.startswith("Error: ") and err.count("\n") == 1 for err in refused)
