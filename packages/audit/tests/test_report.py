"""The HTML report of an audit, read back as a browser would read it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import attrs
import numpy as np
import pytest

from reweight_audit.html import report, write_report
from reweight_audit.html.content import content_of, histogram
from reweight_audit.html.run_files import run_content
from reweight_audit.records import Audit, Share, Signal
from reweight_core import UserError

N, C = 60, 3


def make_audit(**changes):
    rng = np.random.default_rng(0)
    given, suggested = rng.integers(0, C, N), rng.integers(0, C, N)
    probability = rng.random(N)
    matrix = np.zeros((C, C))
    for k in range(N):
        matrix[suggested[k], given[k]] += 1
    values = {
        "run": "runs/erm-1",
        "fingerprint": "abc",
        "classes": ["cat", "dog", "cow"],
        "ids": np.sort(rng.permutation(1000)[:N]),
        "names": [f"photos/{k}.png" for k in range(N)],
        "given": given,
        "suggested": suggested,
        "probability": probability,
        "calibrated": None,
        "signals": [Signal("margin", "small margins", rng.normal(size=N)), Signal("loss", "the loss", rng.random(N))],
        "matrix": matrix,
        "wrong": [Share(0.1 * c, 0.05 * c, 0.2 * c) for c in range(C)],
        "wrong_of_all": Share(0.25, 0.2, 0.3),
        "planted": np.zeros(N, bool),
        "true": np.full(N, -1),
        "weights": rng.random(N),
    }
    return Audit(**(values | changes))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"options": {"method": "erm", "epochs": 3, "lr": 0.5}}))
    (folder / "summary.json").write_text(json.dumps({"epochs": 2, "test_accuracy": None, "health": [{"message": "!"}]}))
    epochs = [{"stage": "train", "train_loss": 2.5}, {"stage": "train", "train_loss": 1.5, "val_accuracy": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    return folder


class Reader(HTMLParser):
    """The elements of a page, and the text that each begins with."""

    def __init__(self):
        super().__init__()
        self.elements, self.texts, self.in_element = [], [], False

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")
        self.in_element = True

    def handle_endtag(self, tag):
        self.in_element = False

    def handle_data(self, data):
        if self.in_element:
            self.texts[-1] += data


@pytest.fixture
def written(tmp_path, run):
    def write(audit=None, thumbnails=None):
        path = tmp_path / "report.html"
        write_report(path, make_audit() if audit is None else audit, run, thumbnails)
        reader = Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        return reader

    return write


def data_of(reader):
    (text,) = [
        text
        for (tag, attributes), text in zip(reader.elements, reader.texts, strict=True)
        if tag == "script" and attributes.get("id") == "audit"
    ]
    return json.loads(text)


def test_what_was_found_comes_back_with_the_worst_first(written):
    audit = make_audit()
    listed = data_of(written(audit))["listed"]
    order = sorted(range(N), key=lambda k: -audit.probability[k])
    assert listed["id"] == [audit.ids[k] for k in order]
    assert listed["name"] == [audit.names[k] for k in order]
    assert listed["given"] == [audit.given[k] for k in order]
    assert listed["suggested"] == [audit.suggested[k] for k in order]
    np.testing.assert_allclose(listed["probability"], audit.probability[order], rtol=1e-3)
    np.testing.assert_allclose(listed["weight"], audit.weights[order], rtol=1e-3)
    np.testing.assert_allclose(listed["signal"], audit.signals[0].values[order], rtol=1e-3)


def test_planted_examples_are_in_no_list_and_no_count(written):
    planted = np.arange(N) % 4 == 0
    audit = make_audit(planted=planted)
    data = data_of(written(audit))
    assert set(data["listed"]["id"]) == set(audit.ids[~planted])
    assert data["examples"] == N - planted.sum() == sum(share["examples"] for share in data["wrong"])
    for values in data["histograms"].values():
        assert sum(sum(group["counts"]) for group in values["groups"]) == N - planted.sum()


NASTY = ["</script><b>bold</b>", "<!-- <script>", "${data} $$ $style 'quoted' \"so\" &amp;", "\u2028\u202eRTL\udc80"]


def test_names_are_data_whatever_they_are(written):
    plain = written()
    names = (NASTY * N)[:N]
    audit = make_audit(classes=NASTY[:C], names=names, run=NASTY[0], fingerprint=NASTY[1], calibrated=NASTY[0])
    reader = written(audit)
    assert reader.elements[: len(plain.elements)] == plain.elements
    assert len(reader.elements) == len(plain.elements)
    data = data_of(reader)
    assert data["classes"] == NASTY[:C]
    assert sorted(data["listed"]["name"]) == sorted(names)
    assert (data["run"], data["calibrated"]) == (NASTY[0], NASTY[0])


def test_nothing_is_fetched_and_only_the_reports_own_script_may_run(written):
    reader = written()
    links = [
        value for _, attributes in reader.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert links and all(link.startswith("#") for link in links)
    assert {tag for tag, _ in reader.elements}.isdisjoint({"link", "iframe", "object", "img", "base"})
    texts = {
        (tag, attributes.get("type")): text
        for (tag, attributes), text in zip(reader.elements, reader.texts, strict=True)
    }
    style, script = texts["style", None], texts["script", "module"]
    assert "url(" not in style and "@import" not in style
    assert re.findall(r"https?://[^\"]*", style + script) == ["http://www.w3.org/2000/svg"]
    (policy,) = [
        attributes["content"]
        for tag, attributes in reader.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    )


def test_a_script_makes_no_markup_of_text():
    for path in resources.files("reweight_audit.html").joinpath("assets").iterdir():
        if path.name.endswith(".js"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path.name


def test_every_script_and_style_is_in_the_page():
    files = {path.name for path in resources.files("reweight_audit.html").joinpath("assets").iterdir()}
    assert files == {"page.html", *report.STYLES, *report.SCRIPTS}


def test_features_have_no_pictures(written):
    assert data_of(written())["pictures"] == []


def test_the_worst_have_pictures_as_many_as_there_is_room_for(written, monkeypatch):
    audit = make_audit()
    asked = []

    def thumbnails(positions):
        asked.extend(positions)
        return [b"\x89PNG" + bytes([k]) * 96 if k % 2 else b"\xff\xd8" + bytes([k]) * 98 for k in positions]

    order = audit.order().tolist()

    def shown():
        asked.clear()
        return data_of(written(audit, thumbnails))["pictures"]

    # the estimate is that a quarter is wrong
    monkeypatch.setattr(report, "PICTURES", 5)
    pictures = shown()
    assert len(pictures) == N // 4
    assert asked == order[: N // 4]
    for position, picture in zip(order[: N // 4], pictures, strict=True):
        kind, _, content = picture.partition(";base64,")
        assert kind == ("data:image/png" if position % 2 else "data:image/jpeg")
        assert base64.b64decode(content) == thumbnails([position])[0]
    monkeypatch.setattr(report, "PICTURES", 25)
    assert len(shown()) == 25
    monkeypatch.setattr(report, "PICTURE_BYTES", 1050)
    assert len(shown()) == 10


def test_pictures_are_read_in_parts_and_no_further_than_there_is_room(written, monkeypatch):
    monkeypatch.setattr(report, "PICTURE_BYTES", 1000)
    monkeypatch.setattr(report, "_AT_ONCE", 4)
    asked = []

    def thumbnails(positions):
        asked.append(len(positions))
        return [bytes(100)] * len(positions)

    assert len(data_of(written(thumbnails=thumbnails))["pictures"]) == 10
    assert asked == [4, 4, 4]


def test_a_list_that_is_too_long_is_cut_behind_the_worst(written, monkeypatch):
    monkeypatch.setattr(report, "LISTED", 20)
    audit = make_audit()
    data = data_of(written(audit))
    assert data["listed"]["id"] == audit.ids[audit.order()[:20]].tolist()
    assert data["examples"] == N


def test_a_file_that_cannot_be_written_is_named(tmp_path, run):
    with pytest.raises(UserError, match=r"--html .*missing"):
        write_report(tmp_path / "missing" / "report.html", make_audit(), run, None)


def test_values_that_are_not_finite_are_unknown_ones(written):
    values = np.zeros(N)
    values[:3] = np.nan, np.inf, -np.inf
    audit = make_audit(signals=[Signal("s", "m", values)], weights=values, probability=np.linspace(1, 0, N))
    listed = data_of(written(audit))["listed"]
    assert listed["weight"][:4] == listed["signal"][:4] == [None, None, None, 0]


def test_the_pairs_of_the_matrix_are_given_then_suggested():
    matrix = np.array([[10.0, 0, 3], [5, 20, 0], [0, 1.5, 30]])
    content = content_of(make_audit(matrix=matrix), np.arange(N))
    assert content["right"] == [10, 20, 30]
    assert content["confusions"] == [[0, 1, 5], [2, 0, 3], [1, 2, 1.5]]


def test_how_many_are_wrong_in_fact_is_told_where_all_true_labels_are_known():
    audit = make_audit(planted=np.arange(N) < 10)
    true = np.where(np.arange(N) % 5 == 0, (audit.given + 1) % C, audit.given)
    known = attrs.evolve(audit, true=true)
    assert content_of(known, np.arange(N))["wrongInFact"] == pytest.approx(0.2)
    one_unknown = attrs.evolve(audit, true=np.where(np.arange(N) == 20, -1, true))
    assert content_of(one_unknown, np.arange(N))["wrongInFact"] is None


@pytest.mark.parametrize(("weights", "effective"), [(np.full(N, 0.3), N), (np.arange(N) < 7.0, 7), (np.zeros(N), 0)])
def test_the_effective_number_of_examples(weights, effective):
    content = content_of(make_audit(weights=weights.astype(float)), np.arange(N))
    assert content["effective"] == pytest.approx(effective)


def test_a_histogram_is_by_the_true_labels_where_all_are_known():
    audit = make_audit()
    values = np.linspace(0, 1, N)
    estimated = histogram(audit, values)
    assert [group["name"] for group in estimated["groups"]] == ["probably right", "probably wrong"]
    assert sum(estimated["groups"][1]["counts"]) == (audit.probability >= 0.5).sum()
    true = np.where(values > 0.7, (audit.given + 1) % C, audit.given)
    known = histogram(attrs.evolve(audit, true=true), values)
    right, wrong = known["groups"]
    assert (right["name"], wrong["name"]) == ("right labels", "wrong labels")
    assert sum(wrong["counts"]) == (values > 0.7).sum()
    # every right label is below every wrong one
    assert max(np.flatnonzero(right["counts"])) <= min(np.flatnonzero(wrong["counts"]))
    one_unknown = histogram(attrs.evolve(audit, true=np.where(np.arange(N) == 0, -1, true)), values)
    assert one_unknown == estimated


def test_a_histogram_keeps_what_lies_far_out_in_its_last_bin():
    values = np.random.default_rng(0).random(N)
    values[0] = 1e9
    audit = make_audit(
        **{name: np.tile(getattr(make_audit(), name), 10) for name in ("given", "probability", "true", "planted")}
    )
    found = histogram(audit, np.concatenate([values, np.tile(values[1:], 9), np.full(9, 0.5)]))
    assert found["edges"][-1] < 2
    assert sum(sum(group["counts"]) for group in found["groups"]) == 10 * N


@pytest.mark.parametrize(("values", "value"), [(np.full(N, 0.25), 0.25), (np.full(N, np.nan), None)])
def test_a_histogram_of_one_value_has_no_bins(values, value):
    found = histogram(make_audit(), values)
    assert (found["edges"], found.get("value")) == ([], value)


def test_a_value_that_nearly_all_share_leaves_room_for_the_others():
    values = np.ones(1000)
    values[0] = 0
    count = {"given": 0, "probability": 0.9, "true": -1, "planted": False}
    found = histogram(make_audit(**{name: np.full(1000, value) for name, value in count.items()}), values)
    assert found["groups"][0]["counts"] == [1, *[0] * 38, 999]


def test_a_runs_own_figures_are_shown(run):
    content = run_content(run)
    assert content["curves"]["train_loss"] == [2.5, 1.5]
    assert content["curves"]["val_accuracy"] == [None, 0.5]
    assert content["curves"]["test_accuracy"] == [None, None]
    assert content["results"] == [["Epochs", 2]]
    assert content["warnings"] == ["!"]


def test_options_are_told_from_their_defaults(run):
    found = {option["flag"]: option for option in run_content(run)["options"]}
    assert found["--lr"] == {"flag": "--lr", "value": "0.5", "default": False}
    assert found["--method"] == {"flag": "--method", "value": "erm", "default": True}


def test_of_a_plugin_that_is_gone_no_option_is_called_a_default(run):
    (run / "config.json").write_text(json.dumps({"options": {"method": "lost", "epochs": 80}}))
    assert [option["default"] for option in run_content(run)["options"]] == [False, False]
