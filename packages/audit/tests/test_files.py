"""An audit in files, for other programs, and what is made of it."""

import csv
import json

import attrs
import numpy as np
import pytest

from reweight_audit.corrections import DROPPED, corrections
from reweight_audit.exports import fiftyone, label_studio, write_export
from reweight_audit.files import read_audit, write_audit, write_csv
from reweight_audit.records import Audit, Share, Signal
from reweight_core import UserError

N = 6


def an_audit(**changes):
    """Six examples of three classes, the last of them planted; 1 and 3 look wrong."""
    probability = np.array([0.1, 0.9, 0.2, 0.6, 0.0, 1.0])
    made = Audit(
        run="/runs/a",
        fingerprint="f" * 64,
        classes=("cat", "dog", "cow"),
        ids=np.array([4, 7, 9, 12, 20, 3]),
        names=tuple(f"train/x y{i}.png" for i in range(N)),
        given=np.array([0, 1, 2, 1, 0, 2]),
        suggested=np.array([0, 2, 2, 0, 0, 0]),
        probability=probability,
        calibrated=None,
        signals=(Signal("loss", "its loss", probability * 3, 0.9, {"auroc": 0.8}),),
        matrix=np.eye(3),
        wrong=(Share(0.1, 0.0, 0.2),) * 3,
        wrong_of_all=Share(0.3, 0.2, 0.4),
        planted=np.arange(N) == 5,
        true=np.array([0, 2, 2, 0, 0, 0]),
        weights=np.ones(N),
    )
    return attrs.evolve(made, **changes)


def decided(tmp_path, *decisions, fingerprint="f" * 64, **changes):
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": 1, "fingerprint": fingerprint, "decisions": list(decisions)} | changes))
    return path


def test_what_is_written_is_read_back(tmp_path):
    audit = an_audit()
    write_audit(tmp_path / "audit.json", audit)
    for path in (tmp_path, tmp_path / "audit.json"):
        found = attrs.asdict(read_audit(path), recurse=False)
        for name, value in attrs.asdict(audit, recurse=False).items():
            if name != "signals":
                np.testing.assert_equal(found[name], value, err_msg=name)
        (signal,) = found["signals"]
        assert attrs.asdict(signal)["known"] == {"auroc": 0.8} and np.array_equal(signal.values, audit.probability * 3)


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace('"format": 1', '"format": 9')])
def test_a_damaged_audit_is_told(damage, tmp_path):
    write_audit(tmp_path / "audit.json", an_audit())
    text = (tmp_path / "audit.json").read_text()
    (tmp_path / "audit.json").write_text(damage(text))
    with pytest.raises(UserError, match="not an audit that can be read"):
        read_audit(tmp_path)


def test_a_run_that_was_not_audited_is_told(tmp_path):
    with pytest.raises(UserError, match="has not been audited; run reweight audit"):
        read_audit(tmp_path)


def test_the_worst_come_first_and_planted_ones_are_left_out(tmp_path):
    write_csv(tmp_path / "a.csv", an_audit())
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["7", "12", "9", "4", "20"]
    assert rows[0] == {
        "name": "train/x y1.png",
        "id": "7",
        "given_label": "dog",
        "suggested_label": "cow",
        "probability_wrong": "0.9000",
        "loss": "2.7",
        "true_label": "cow",
    }
    write_csv(tmp_path / "b.csv", an_audit(true=np.full(N, -1)))
    assert "true_label" not in (tmp_path / "b.csv").read_text()


class TestCorrections:
    def test_thresholds_relabel_first_and_drop_the_rest(self):
        done = corrections(an_audit(given=np.array([0, 1, 2, 1, 1, 2])), relabel=0.8, drop=0.5)
        assert done.labels.tolist() == [0, 2, 2, DROPPED, 1, 2]
        assert (done.relabelled, done.dropped, done.decided.sum()) == (1, 1, 0)

    def test_what_a_person_decided_counts_before_thresholds(self, tmp_path):
        path = decided(
            tmp_path,
            {"id": 7, "name": "x", "decision": "keep"},
            {"id": 9, "name": "x", "decision": "relabel", "label": "cow"},
            {"id": 4, "name": "x", "decision": "drop"},
        )
        done = corrections(an_audit(), relabel=0.5, drop=0.15, decisions=path)
        # without them, the second and the fourth were relabelled, and the third dropped
        assert done.labels.tolist() == [DROPPED, 1, 2, 0, 0, 2]
        assert done.decided.tolist() == [True, True, True, False, False, False]

    @pytest.mark.parametrize(
        ("decision", "problem"),
        [
            ({"id": 7, "decision": "relabel", "label": "dgo"}, "decision 1 cannot be read .*did you mean 'dog'"),
            ({"id": 8, "decision": "keep"}, "decision 1 cannot be read"),
            ({"id": 3, "decision": "keep"}, "decision 1 cannot be read"),
            ({"id": 7, "decision": "burn"}, "'burn' is not keep, relabel or drop"),
            ("keep", "decision 1 cannot be read"),
        ],
    )
    def test_a_wrong_decision_is_told(self, decision, problem, tmp_path):
        with pytest.raises(UserError, match=problem):
            corrections(an_audit(), decisions=decided(tmp_path, decision))

    def test_the_decisions_of_another_audit_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="are of another audit"):
            corrections(an_audit(), decisions=decided(tmp_path, fingerprint="e" * 64))
        with pytest.raises(UserError, match="no file of decisions"):
            corrections(an_audit(), decisions=decided(tmp_path, format=2))
        with pytest.raises(UserError, match="no file of decisions"):
            corrections(an_audit(), decisions=tmp_path / "nothing.json")

    def test_a_class_that_would_be_lost_is_told(self):
        with pytest.raises(UserError, match="no example of class 'dog' would be left"):
            corrections(an_audit(), drop=0.5)


class TestExports:
    def test_a_data_frame_has_the_columns_of_cleanlab_in_the_order_of_the_training_set(self):
        frame = an_audit().to_frame()
        assert frame.index.tolist() == list(an_audit().names[:5])
        assert frame["is_label_issue"].tolist() == [False, True, False, True, False]
        np.testing.assert_allclose(frame["label_score"], [0.9, 0.1, 0.8, 0.4, 1.0])
        assert frame["given_label"].tolist() == [0, 1, 2, 1, 0]
        assert frame["predicted_name"].tolist() == ["cat", "cow", "cow", "cat", "cat"]

    def test_label_studio_sorts_the_worst_first_by_the_smallest_score(self):
        tasks = label_studio(an_audit(), an_audit().names)
        assert [task["predictions"][0]["score"] for task in tasks] == sorted([0.9, 0.1, 0.8, 0.4, 1.0])
        first = tasks[0]
        assert first["data"] == {
            "image": "/data/local-files/?d=train/x%20y1.png",
            "given_label": "dog",
            "probability_wrong": 0.9,
        }
        assert first["predictions"][0]["result"][0]["value"] == {"choices": ["cow"]}

    def test_fiftyone_has_a_label_for_each_image_by_its_name_without_its_ending(self):
        found = fiftyone(an_audit(), an_audit().names)
        assert found["classes"] == ["cat", "dog", "cow"] and len(found["labels"]) == 5
        assert found["labels"]["train/x y1"] == {
            "label": "dog",
            "confidence": 0.1,
            "attributes": {"suggested_label": "cow"},
        }

    def test_images_that_fiftyone_cannot_tell_apart_are_refused(self, tmp_path):
        files = ["a.png", "a.jpg", *an_audit().names[2:]]
        write_export("label-studio", tmp_path / "x.json", an_audit(), files)
        with pytest.raises(UserError, match="differ in their endings alone"):
            write_export("fiftyone", tmp_path / "x.json", an_audit(), files)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("given", [0, 1, 2, 1, 0, 3]),
        ("given", [0, 1, 2, 1, 0, -1]),
        ("true", [0, 1, 2, 1, 0, -2]),
        ("suggested", ["cat"] * N),
        ("suggested", [0.5] * N),
        ("ids", [None] * N),
        ("ids", [[1]] * N),
        ("probability", [2.0] * N),
        ("probability", [float("nan")] * N),
        ("planted", [0] * N),
        ("weights", ["x"] * N),
        ("names", [1] * N),
        ("classes", [1, 2, 3]),
        ("signals", []),
        ("run", 3),
    ],
)
def test_an_audit_of_other_values_is_refused(name, values, tmp_path):
    write_audit(tmp_path / "audit.json", an_audit())
    content = json.loads((tmp_path / "audit.json").read_text())
    (tmp_path / "audit.json").write_text(json.dumps(content | {name: values}))
    with pytest.raises(UserError, match="not an audit that can be read"):
        read_audit(tmp_path)
