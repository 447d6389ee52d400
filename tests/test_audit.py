"""``reweight audit``, ``apply`` and ``score``, with data and methods of every kind."""

import csv
import json
import re

import attrs
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score

from reweight_audit.audited_run import AuditedRun
from reweight_audit.out_of_sample import by_trusted
from reweight_core import UserError, apply, audit, configure, train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on digits with a third of the labels wrong, and 30 planted examples."""
    out = tmp_path_factory.mktemp("audit") / "run"
    options = {"data": "digits", "noise": "uniform-exclusive:0.3", "meta_size": 100, "plant": 30, "epochs": 50}
    train(configure(method="erm", out=out, **options))
    return out


def table(folder, rows=200, wrong=0.25, files=False):
    """Blobs as a table whose labels are wrong at known places, and clean ones as its meta set."""
    values, labels = make_blobs(rows + 60, 6, centers=3, cluster_std=2, random_state=1)
    rng = np.random.RandomState(0)
    given = np.where(rng.uniform(size=len(labels)) < wrong, (labels + 1) % 3, labels)
    given[rows:] = labels[rows:]
    folder.mkdir()
    for part, chosen in (("train", slice(rows)), ("meta", slice(rows, rows + 30)), ("test", slice(rows + 30, None))):
        with open(folder / f"{part}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", *"abcdef"])
            for i, (x, y) in enumerate(zip(values[chosen], given[chosen], strict=True)):
                writer.writerow([f"{part} {i}", f"class {y}", *(f"{v:.3f}" for v in x)])
    return folder, labels[:rows]


def photos(folder, seed=0):
    """Images of two colours and of different sizes, a fifth in the wrong folder; both classes have the same names."""
    rng = np.random.RandomState(seed)
    for part, count in (("train", 30), ("meta", 8), ("test", 8)):
        for i in range(count):
            true = i % 2
            given = 1 - true if part == "train" and i % 5 == 0 else true
            pixels = rng.randint(30, 60, (rng.randint(8, 20), 12, 3)).astype(np.uint8) + np.uint8(160 * true)
            of_class = folder / part / ("dark", "bright")[given]
            of_class.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(of_class / f"{len(list(of_class.iterdir()))}.png")
    return folder


def train_on(root, out, **options):
    """Train on photographs, with so much weight decay that no wrong label is learned by heart."""
    data = {"data": "folder", "data_root": root, "image_size": 8, "augment": "none", "cache": False}
    training = {"model": "linear", "optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "steps": 60}
    return train(configure(method="erm", out=out, **data | training | options))


def is_bright(path):
    return np.asarray(Image.open(path)).mean() > 100


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_is_ranked_by_what_planted_examples_say_and_measured_by_the_true_labels(digits, reweight, tmp_path):
    done = reweight("audit", digits, "--out-of-sample", "no", "--csv", tmp_path / "a.csv", "--worst", 3)
    assert done.status == 0, done.err
    rows = rows_of(tmp_path / "a.csv")
    found = json.loads((digits / "audit.json").read_text())
    assert len(rows) == len(found["ids"]) - 30
    wrong = np.array([row["given_label"] != row["true_label"] for row in rows])
    first = found["signals"][0]
    values = np.array([float(row[first["name"]]) for row in rows])
    assert (np.diff([float(row["probability_wrong"]) for row in rows]) <= 0).all()
    assert first["known"]["auroc"] == pytest.approx(roc_auc_score(wrong, values), abs=1e-4)
    assert first["known"]["auroc"] > 0.9 and first["auroc"] > 0.9
    assert found["wrong_of_all"]["low"] <= wrong.mean() <= found["wrong_of_all"]["high"]
    assert "30 planted examples" in found["calibrated"] and "30 planted examples" in done.out
    matrix = np.array(found["matrix"])
    assert matrix.sum() == pytest.approx(len(rows))
    counts = np.bincount([int(row["given_label"]) for row in rows], minlength=10)
    np.testing.assert_allclose(matrix.sum(0), counts)


def test_networks_of_the_trusted_examples_judge_what_they_did_not_learn_from_and_are_kept(digits, reweight):
    first = reweight("audit", digits, "--json")
    again = reweight("audit", digits, "--json")
    quiet = reweight("audit", digits, "--quiet")
    assert quiet.err == "" and re.fullmatch(r"About .* labels are wrong\. By the true labels it is .*\n", quiet.out)
    assert first.status == 0 and "trusted examples alone" in first.err
    assert json.loads(first.out) == json.loads(again.out) and "training" not in again.err
    signals = {signal["name"]: signal for signal in json.loads(first.out)["signals"]}
    assert signals["out-of-sample"]["known"]["auroc"] > 0.9
    # measured by clean examples that these networks did not get
    assert abs(signals["out-of-sample"]["auroc"] - signals["out-of-sample"]["known"]["auroc"]) < 0.1


def test_folds_judge_examples_that_were_left_out(tmp_path, reweight):
    folder, _ = table(tmp_path / "data", wrong=0.0)
    # an example that is like nothing else, of which only a network that learned it by heart knows the class
    text = (folder / "train.csv").read_text().splitlines()
    text[5] = "outlier,class 2,900,900,900,-900,-900,-900"
    text[6] = "lone,class lone,1,1,1,1,1,1"
    (folder / "train.csv").write_text("\n".join(text) + "\n")
    for part in ("meta", "test"):
        with open(folder / f"{part}.csv", "a") as file:
            file.write(f"{part} lone,class lone,1,1,1,1,1,1\n")
    options = {"data": "csv", "data_root": folder, "model": "mlp", "steps": 60, "optimizer": "adam", "lr": 0.01}
    train(configure(method="erm", out=tmp_path / "run", **options))
    done = reweight("audit", tmp_path / "run", "--out-of-sample", "4", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    values = {signal["name"]: np.array(signal["values"]) for signal in found["signals"]}
    outlier = found["names"].index("outlier")
    assert "class lone are in this part" in done.err
    # the network that learned it by heart is sure of its label, the one that did not is sure of another
    assert values["prediction"][outlier] < 0 < values["out-of-sample"][outlier]


def test_a_table_is_corrected_in_its_own_columns(tmp_path, reweight):
    folder, labels = table(tmp_path / "data")
    train(configure(method="erm", data="csv", data_root=folder, out=tmp_path / "run", steps=100))
    assert reweight("audit", tmp_path / "run").status == 0
    done = reweight("apply", tmp_path / "run", "--out", tmp_path / "new", "--relabel", 0.5)
    assert done.status == 0, done.err
    assert f"reweight train --data csv --data-root {tmp_path / 'new'}" in done.out
    corrected, before = rows_of(tmp_path / "new" / "train.csv"), rows_of(folder / "train.csv")
    assert [{**row, "label": ""} for row in corrected] == [{**row, "label": ""} for row in before]
    truth = [f"class {label}" for label in labels]
    right = [sum(row["label"] == true for row, true in zip(rows, truth, strict=True)) for rows in (before, corrected)]
    assert right[1] > 0.95 * len(truth) > right[0]
    for part in ("meta", "test"):
        assert rows_of(tmp_path / "new" / f"{part}.csv") == rows_of(folder / f"{part}.csv")
    again = reweight(
        "train", "--data", "csv", "--data-root", tmp_path / "new", "--steps", 5, "--out", tmp_path / "again"
    )
    assert again.status == 0, again.err
    record = rows_of(tmp_path / "new" / "corrections.csv")
    changed = [row["id"] for row, old in zip(corrected, before, strict=True) if row["label"] != old["label"]]
    assert [row["name"] for row in record] == changed and {row["by"] for row in record} == {"threshold"}


def test_a_folder_of_photographs_is_corrected_with_the_files_themselves(tmp_path, reweight):
    root = photos(tmp_path / "photos")
    train_on(root, tmp_path / "run")
    exports = ["--label-studio", tmp_path / "tasks.json", "--fiftyone", tmp_path / "labels.json"]
    assert reweight("audit", tmp_path / "run", *exports).status == 0
    assert len(json.loads((tmp_path / "tasks.json").read_text())) == 30
    done = reweight("apply", tmp_path / "run", "--out", tmp_path / "new", "--relabel", 0.5)
    assert done.status == 0, done.err
    images = {part: list((tmp_path / "new" / part).rglob("*.png")) for part in ("train", "meta", "test")}
    assert [len(images[part]) for part in ("train", "meta", "test")] == [30, 8, 8]
    for image in images["train"]:
        assert (image.parent.name == "bright") == (np.asarray(Image.open(image)).mean() > 100), image
    assert sorted(p.read_bytes() for p in images["train"]) == sorted(
        p.read_bytes() for p in (root / "train").rglob("*.png")
    )


def test_no_file_of_the_users_is_touched_whatever_names_there_are(tmp_path, reweight):
    root = photos(tmp_path / "photos")
    # names that corrected folders have had before
    for name in ("0-2", "0-3", "dark-0", "1-2"):
        source = root / "train" / "bright" / "3.png"
        pixels = np.asarray(Image.open(source))
        Image.fromarray(pixels[::-1].copy() + np.uint8(len(name))).save(source.with_name(f"{name}.png"))
    train_on(root, tmp_path / "run", steps=5)
    files = {path: path.read_bytes() for path in root.rglob("*.png")}
    found = audit(tmp_path / "run", out_of_sample="no")
    assert reweight("audit", tmp_path / "run", "--out-of-sample", "no").status == 0
    everything = [
        {"id": int(i), "decision": "relabel", "label": "bright"}
        for i, name in zip(found.ids, found.names, strict=True)
        if not name.endswith("/9.png")
    ]
    decisions = {"format": 1, "fingerprint": found.fingerprint, "decisions": everything}
    (tmp_path / "decisions.json").write_text(json.dumps(decisions))
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    done = reweight("apply", moved, "--out", tmp_path / "new", "--decisions", tmp_path / "decisions.json")
    assert done.status == 0, done.err
    assert {path: path.read_bytes() for path in files} == files
    new = list((tmp_path / "new" / "train").rglob("*.png"))
    assert sorted(p.read_bytes() for p in new) == sorted(b for p, b in files.items() if p.parent.parent.name == "train")
    for path in new:
        path.write_bytes(b"edited")
    assert {path: path.read_bytes() for path in files} == files


def test_a_meta_set_that_is_drawn_from_its_own_table_goes_along(tmp_path, reweight):
    folder, _ = table(tmp_path / "data")
    train(configure(method="erm", data="csv", data_root=folder, meta_size=12, out=tmp_path / "run", steps=30))
    assert reweight("audit", tmp_path / "run").status == 0
    done = reweight("apply", tmp_path / "run", "--out", tmp_path / "new", "--relabel", 0.5)
    assert done.status == 0, done.err
    rows = {row["id"]: row for row in rows_of(folder / "meta.csv")}
    drawn = rows_of(tmp_path / "new" / "meta.csv")
    assert len(drawn) == 12 and all(rows[row["id"]] == row for row in drawn)


def test_networks_that_learned_from_the_clean_examples_are_not_measured_by_them(tmp_path):
    folder, _ = table(tmp_path / "data")
    train(configure(method="clean-only", data="csv", data_root=folder, out=tmp_path / "run", steps=30))
    signals = {signal.name: signal for signal in audit(tmp_path / "run", out_of_sample="2").signals}
    assert signals["out-of-sample"].auroc is None
    assert audit(tmp_path / "run", out_of_sample="trusted").signals[0].auroc is not None


def test_larger_images_have_networks_of_the_trusted_examples_where_these_take_little(tmp_path):
    root = photos(tmp_path / "photos")
    train_on(root, tmp_path / "run", steps=40, image_size=24, batch_size=30)
    file = tmp_path / "run" / "summary.json"
    summary = json.loads(file.read_text())

    def signals(**figures):
        file.write_text(json.dumps(summary | figures))
        return [signal.name for signal in audit(tmp_path / "run").signals]

    # three trainings of 40 steps, of 8 examples where the run had 30: 32 steps of the run
    assert "out-of-sample" not in signals(seconds_per_step=2.0, seconds=120.0)
    assert "out-of-sample" in signals(seconds_per_step=2.0, seconds=129.0)
    (tmp_path / "run" / "audit-trusted.safetensors").unlink()
    assert "out-of-sample" in signals(seconds_per_step=1.85, seconds=1.0)


def test_a_run_of_several_processes_is_judged_in_one(digits):
    run = AuditedRun.read(digits)
    of_two = attrs.evolve(run, config=attrs.evolve(run.config, processes=2))
    assert len(by_trusted(of_two, lambda text: None).train) == len(run.trained_on.train)


def test_images_that_are_no_files_are_written_as_they_are(digits, tmp_path, reweight):
    audit(digits, out_of_sample="no")
    assert reweight("audit", digits, "--out-of-sample", "no").status == 0
    done = apply(digits, out=tmp_path / "new", weights=tmp_path / "weights.csv")
    assert done.options == f"--data folder --data-root {tmp_path / 'new'}"
    images = list((tmp_path / "new" / "train").rglob("*.png"))
    weights = {int(row["id"]): float(row["weight"]) for row in rows_of(tmp_path / "weights.csv")}
    assert len(images) == len(weights) - done.corrections.dropped
    assert sum(weight == 0 for weight in weights.values()) == done.corrections.dropped > 0
    # what comes of them is what the weights make of the run's own data
    options = {"data": "digits", "noise": "uniform-exclusive:0.3", "meta_size": 100, "epochs": 50}
    before = json.loads((digits / "summary.json").read_text())["test_accuracy"]
    again = train(configure(method="erm", out=tmp_path / "run", weights=tmp_path / "weights.csv", **options))
    assert again.summary["test_accuracy"] > before


def test_new_examples_are_judged_by_their_folders(tmp_path, reweight):
    root = photos(tmp_path / "photos")
    train_on(root, tmp_path / "run")
    new = photos(tmp_path / "new", seed=1) / "train"
    done = reweight("score", tmp_path / "run", new, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    worst = {found["names"][i] for i in np.argsort(found["probability"])[-6:]}
    wrong = {
        str(p) for p in new.rglob("*.png") if (p.parent.name == "bright") != (np.asarray(Image.open(p)).mean() > 100)
    }
    assert worst == wrong
    (new / "dark").rename(new / "drak")
    assert "'drak' is none of the run's classes (did you mean 'dark'?)" in reweight("score", tmp_path / "run", new).err


class TestErrors:
    def test_data_that_are_gone_or_others(self, tmp_path, reweight):
        root = photos(tmp_path / "photos")
        train_on(root, tmp_path / "run", steps=5)
        (root / "train" / "dark" / "3.png").rename(root / "train" / "dark" / "33.png")
        done = reweight("audit", tmp_path / "run")
        assert done.status == 2 and "the data are not those that the run was trained on" in done.err
        root.rename(tmp_path / "moved")
        done = reweight("audit", tmp_path / "run")
        assert done.status == 2 and "the data of the run cannot be read" in done.err

    def test_a_run_without_records(self, digits, tmp_path, reweight):
        run = tmp_path / "run"
        run.mkdir()
        (run / "config.json").write_bytes((digits / "config.json").read_bytes())
        done = reweight("audit", run)
        assert done.status == 2 and "written when a run is finished" in done.err

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--by", "los"], "--by los: .* has no such signal .did you mean 'loss'"),
            (["--out-of-sample", "1"], "must be auto, no, trusted, or a number of folds"),
            (["--label-studio", "x.json"], "its examples are no image files"),
            (["--class", "11"], "--class 11: the run has no such class"),
        ],
    )
    def test_what_cannot_be(self, options, problem, digits, reweight, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = reweight("audit", digits, "--out-of-sample", "no", *options)
        assert done.status == 2
        assert re.search(problem, done.err), done.err

    def test_too_few_trusted_examples(self, tmp_path):
        train(configure(method="erm", data="digits", meta_size=20, epochs=1, out=tmp_path / "run"))
        with pytest.raises(UserError, match="has 2 trusted examples of one class, and 3 of each are needed"):
            audit(tmp_path / "run", out_of_sample="trusted")

    def test_nowhere_to_write(self, digits, tmp_path, reweight):
        assert "give --out FOLDER" in reweight("apply", digits).err
        reweight("audit", digits, "--out-of-sample", "no")
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").write_text("")
        done = reweight("apply", digits, "--out", tmp_path / "taken")
        assert done.status == 2 and "exists and is not empty" in done.err
