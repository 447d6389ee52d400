"""`reweight fit` from end to end, on tables made here."""

import json
import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import reweight_core
from reweight_core import UserError, configure, evaluate, load, load_data
from reweight_core.data.folds import in_fold
from reweight_fit import trials as module
from reweight_fit.candidates import CANDIDATES, Facts, candidates_for, is_unbalanced
from reweight_fit.search import FOLDS, Trial, Way

FEW = {"candidates": ["gce", "fine-tune"], "budget": "100x"}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A table of three classes that a linear network tells apart; of the last class there is little."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [150, 150, 60])
    features = rng.normal(size=(360, 4)) + 2.5 * np.eye(3, 4)[labels]
    rows = [f"{'abc'[c]},{','.join(f'{v:.4f}' for v in x)}" for c, x in zip(labels, features, strict=True)]
    rng.shuffle(rows)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.csv").write_text("\n".join(["label,p,q,r,s", *rows]))


DATA = {"data": "csv", "data_root": "table", "test_from": "split:0.25"}
SHORT = {**DATA, "noise": "uniform:0.4", "meta_size": 18, "steps": 20, "device": "cpu"}


def test_a_class_that_would_be_lost_is_told_before(tmp_path):
    table = tmp_path / "table" / "train.csv"
    alone = table.read_text() + "\nd,1,1,1,1"
    few = DATA | {"test_from": "none", "candidates": ["gce"], "budget": "1x", "steps": 5}
    table.write_text(alone)
    with pytest.raises(UserError, match=r"^without trusted examples .* no example of class 'd'"):
        reweight_core.fit("best", **few)
    table.write_text(alone + "\nd,1,1,1,2")
    reweight_core.fit("best", **few)


def trials(folder="best.search"):
    return {file.name: load_file(file.with_suffix(".safetensors")) for file in Path(folder).glob("*of*.json")}


def test_the_program_leaves_an_ordinary_run_and_says_what_won(reweight, tmp_path):
    data = "--data csv --data-root table --test-from split:0.25 --noise uniform:0.4 --meta-size 18 --device cpu"
    done = reweight("fit", *data.split(), "--steps", 60, "--candidates", "gce,fine-tune", "--out", "best")
    assert done.status == 0, done.err
    for words in ("clean-only", " won: accuracy ", "not estimated", "the search took"):
        assert words in done.out
    report = json.loads((tmp_path / "best/fit.json").read_text())
    winner, summary = report["winner"], json.loads((tmp_path / "best/summary.json").read_text())
    assert max(row["accuracy"] for row in report["rows"]) - winner["accuracy"] < 0.2
    assert summary["test_accuracy"] > 0.75
    assert evaluate("best")["test_accuracy"] == summary["test_accuracy"]
    for line in done.out.splitlines():
        # only trials after plain training, which says what the search may take
        assert (" right, " in line and " s, at most " in line) == (" right, " in line and not line.startswith("erm, "))
    # the trials are there: only the last training is made again
    for flag in ("--quiet", "--json"):
        shutil.rmtree(tmp_path / "best")
        again = reweight("fit", *data.split(), "--steps", 60, "--candidates", "gce,fine-tune", "--out", "best", flag)
        assert again.status == 0, again.err
        if flag == "--quiet":
            assert again.out == f"best: {winner['name']}, test accuracy {summary['test_accuracy']:.4f}\n"
        else:
            printed = json.loads(again.out)
            assert (printed["fit"]["winner"], printed["test_accuracy"]) == (winner, summary["test_accuracy"])
    assert len(load("best").classes) == 3
    (tmp_path / "new.csv").write_text("p,q,r,s\n2.5,0,0,0\n0,2.5,0,0\n")
    assert reweight("predict", "best", "new.csv", "--csv", "found.csv").status == 0
    assert [line.split(",")[1] for line in (tmp_path / "found.csv").read_text().splitlines()[1:]] == ["a", "b"]


def test_python_has_it_too():
    fitted = reweight_core.fit("best", **FEW, **SHORT)
    assert fitted.run.folder.name == "best"
    assert {row.name for row in fitted.report.rows} == {"erm", "clean-only", "gce", "fine-tune"}


def test_estimates_are_of_examples_that_the_networks_did_not_get(monkeypatch):
    """A network is asked for the very part of the trusted examples that `prepare` keeps out of its training."""
    reweight_core.fit("best", **FEW, **SHORT)
    meta = load_data(configure(**SHORT)).meta
    found = trials()
    assert len(found) > 8
    for name, outcome in found.items():
        number, parts = name.removesuffix(".json").rsplit("-", 1)[1].split("of")
        fold = (int(number), int(parts))
        np.testing.assert_array_equal(outcome["positions"], np.flatnonzero(in_fold(meta.labels, fold, 0)))
        parts = {"clean-only": 2 * FOLDS, "fine-tune": FOLDS}
        assert fold[1] == next((of_name for begin, of_name in parts.items() if name.startswith(begin)), 1)


def test_trials_in_processes_say_the_same():
    reweight_core.fit("one", **FEW, **SHORT, jobs=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reweight_core.fit("two", **FEW, **SHORT, jobs=2)
    finally:
        torch.set_num_threads(threads)
    one, two = trials("one.search"), trials("two.search")
    common = one.keys() & two.keys()
    assert len(common) > 8
    for name in common:
        assert (one[name]["logits"] == two[name]["logits"]).all()


def test_a_process_trains_on_data_that_it_cannot_load(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_of_process", [])
    trial, data = Trial(Way("clean-only"), (1, 2)), load_data(configure(**SHORT))
    memory = {name: value for name, value in SHORT.items() if not name.startswith("data")}
    memory |= {"data": "memory", "memory_examples": len(data.dataset.train)}
    module._begin_process(memory, tmp_path / "one", torch.get_num_threads(), data.dataset)
    found, expected = module._in_process(trial), module.Trials(SHORT, tmp_path / "two", data).one(trial)
    assert (found.logits == expected.logits).all()


def test_an_interrupted_call_goes_on_and_keeps_its_trials(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("reweight_fit.folders.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reweight_core.fit("best", **FEW, **SHORT)
    before = {name: (tmp_path / "best.search" / name).stat().st_mtime_ns for name in trials()}
    fitted = reweight_core.fit("best", **FEW, **SHORT)
    after = {name: (tmp_path / "best.search" / name).stat().st_mtime_ns for name in trials()}
    assert before == after
    whole = reweight_core.fit("whole", **FEW, **SHORT)
    if whole.report.winner.name == fitted.report.winner.name:
        assert whole.run.summary["test_accuracy"] == fitted.run.summary["test_accuracy"]


def test_a_last_training_that_was_interrupted_is_resumed(tmp_path):
    class Interrupts:
        @reweight_core.hookimpl
        def observe_epoch(self, metrics):
            if metrics["epoch"] == 3:
                raise KeyboardInterrupt

    options = SHORT | {"checkpoint_every": "1epochs"}
    with pytest.raises(KeyboardInterrupt):
        reweight_core.fit("best", **FEW, **options, observers=[Interrupts()])
    config = tmp_path / "best/config.json"
    kept = config.read_text()
    config.write_text(kept.replace('"momentum": 0.9', '"momentum": 0.8'))
    with pytest.raises(UserError, match="best: holds an unfinished run of another way to train"):
        reweight_core.fit("best", **FEW, **options)
    config.write_text(kept)
    again = reweight_core.fit("best", **FEW, **options)
    assert (tmp_path / "best/fit.json").exists()
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "best/metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) > 3
    assert again.run.summary["test_accuracy"] == evaluate("best")["test_accuracy"]


def test_an_observer_hears_of_the_last_training_alone_and_need_not_be_there_again(tmp_path):
    class Interrupts:
        @reweight_core.hookimpl
        def observe_epoch(self, metrics):
            raise KeyboardInterrupt

    options = FEW | {"candidates": ["gce"]} | SHORT
    observed = {"observe": ["tensorboard"], "tensorboard_log_dir": tmp_path / "logs"}
    with pytest.raises(KeyboardInterrupt):
        reweight_core.fit("best", **options, **observed, observers=[Interrupts()])
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["best"]
    (tmp_path / "best/curves.txt").write_text("an observer's")
    assert reweight_core.fit("best", **options).run.summary["epochs"]


def test_without_trusted_examples_the_report_says_what_that_cannot_tell():
    fitted = reweight_core.fit("best", **FEW | {"candidates": ["gce"]}, **SHORT | {"meta_size": 0})
    assert fitted.report.by == "observed"
    assert {row.judged_on for row in fitted.report.rows} == {90}
    assert "only trusted examples" in " ".join(fitted.report.sentences)


def test_the_share_of_wrong_labels_is_estimated():
    options = SHORT | {"noise": "uniform-exclusive:0.3", "steps": 200, "meta_size": 30}
    fitted = reweight_core.fit("best", candidates=["posterior-label"], budget="30x", **options)
    data = load_data(configure(**options))
    share = np.average(list(fitted.report.wrong.values()), weights=np.bincount(data.train.labels))
    assert share == pytest.approx(data.noise_rate, abs=0.1)
    assert ("of unlike size" in " ".join(fitted.report.sentences)) == is_unbalanced(np.bincount(data.train.labels))


def test_candidates_fit_the_data():
    facts = Facts(load_data(configure(**DATA)), {}, "linear")
    assert not facts.unbalanced
    names = [candidate.name for candidate in candidates_for(None, facts)]
    assert "gdw" not in names and "balanced-softmax" not in names and names[0] == "erm"
    assert [network.name for network in facts.networks()] == ["default", "perceptron"]
    trusted = Facts(load_data(configure(**DATA, meta_size=12, imb=0.1)), {"lr": 0.1}, "linear")
    assert trusted.unbalanced
    assert [candidate.name for candidate in candidates_for(None, trusted)] == [item.name for item in CANDIDATES]
    assert [network.name for network in trusted.networks()] == ["default"]


def test_what_a_class_lost_is_known_from_the_examples_that_were_seen():
    """After a few steps, most examples were never seen: they are not wrong."""
    options = DATA | {"meta_size": 18, "steps": 9, "batch_size": 5, "device": "cpu"}
    with pytest.warns(UserWarning, match="are trusted to be clean"):
        fitted = reweight_core.fit("best", candidates=["posterior-label"], budget="100x", **options)
    assert max(share for share in fitted.report.wrong.values() if share is not None) < 0.6


def test_a_plain_training_that_cannot_be_made_ends_the_search_at_once(reweight, tmp_path):
    data = [
        "--data",
        "csv",
        "--data-root",
        "table",
        "--test-from",
        "none",
        "--meta-size",
        "18",
        "--noise",
        "uniform:0.4",
    ]
    done = reweight("fit", *data, "--model", "nosuch", "--out", "best")
    assert done.status == 2 and "nosuch" in done.err and done.err.count("\n") == 1
    done = reweight("fit", *data, "--steps", 400, "--lr", "1e9", "--out", "lost")
    assert done.status == 1 and "lower --lr" in done.err
    assert not (tmp_path / "lost").exists()


def test_what_fails_for_another_reason_than_training_is_tried_again(monkeypatch):
    real = module.train

    def full(config, **more):
        if config.loss == "gce":
            raise UserError("no space left on device")
        return real(config, **more)

    with monkeypatch.context() as patched:
        patched.setattr(module, "train", full)
        fitted = reweight_core.fit("best", **FEW, **SHORT)
    assert {row.problem for row in fitted.report.rows if row.name == "gce"} == {"no space left on device"}
    assert not any(name.startswith("gce") for name in trials())
    shutil.rmtree("best")
    fitted = reweight_core.fit("best", **FEW, **SHORT)
    assert {row.problem for row in fitted.report.rows} == {None}


def test_data_at_hand_are_not_loaded_again(tmp_path):
    config = configure(**SHORT, out=tmp_path / "one")
    data = load_data(config)
    first = reweight_core.train(config, data=data)
    again = load_data(config, data.dataset)
    (tmp_path / "table" / "train.csv").unlink()
    second = reweight_core.train(attrs.evolve(config, out=tmp_path / "two"), data=again)
    assert first.summary["test_accuracy"] == second.summary["test_accuracy"]
    for one, two in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_data_without_a_test_set_need_no_further_word():
    data = {"data": "csv", "data_root": "table", "steps": 5, "device": "cpu"}
    fitted = reweight_core.fit("best", **data, candidates=["gce"], budget="1x")
    assert fitted.run.summary["test_accuracy"] is None and fitted.report.winner.accuracy > 0


def test_nothing_of_the_user_is_deleted(tmp_path):
    reweight_core.fit("best", **FEW, **SHORT)
    with pytest.raises(UserError, match=r"holds a finished run; delete it to search on with the trials in best.search"):
        reweight_core.fit("best", **FEW, **SHORT)
    shutil.rmtree("best")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and not empty"):
        reweight_core.fit("best", **FEW, **SHORT)
    assert (tmp_path / "best" / "notes.txt").read_text() == "mine"


def test_nothing_of_a_training_depends_on_what_it_is_judged_on(monkeypatch):
    seen, real = [], module.train

    def watched(config, *, data):
        seen.append((data.val, data.test))
        return real(config, data=data)

    monkeypatch.setattr(module, "train", watched)
    reweight_core.fit("best", **FEW, **SHORT)
    assert len(seen) > 8 and set(seen) == {(None, None)}


def test_streamed_images_are_judged_as_others(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("meta", 3), ("test", 2)):
        for c, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + 130 * c
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    data = {"data": "folder", "data_root": "photos", "image_size": 8, "model": "linear", "steps": 30, "lr": 0.01}
    few = {"candidates": [], "budget": "1x", "device": "cpu", "batch_size": 8, "workers": 1}
    report = reweight_core.fit("best", **data, **few, stream="on").report
    assert report.winner.accuracy > 0.8
    assert {row.name: row.judged_on for row in report.rows} == {"erm": 6, "clean-only": 6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidates", "gcee"], "--candidates gcee: there is none of this name (did you mean 'gce'?)"),
        (["--candidates", "gdw"], "--candidates gdw: learns from trusted examples, and there are none"),
        (["--budget", "10"], "--budget 10: must be a multiple of plain training"),
        (["--budget", "0x"], "--budget 0x: must be"),
        (["--out", "table"], "--out table: is there already and not empty"),
        (["--out", "table/train.csv"], "--out table/train.csv: "),
        (["--out", "/proc/nope/best"], "/proc/nope/best"),
        (["--meta-size", "2", "--meta-draw", "random"], "there are only 2 trusted examples, too few to judge by"),
        (["--config", "given.toml"], "--out: is chosen by fit"),
        (["--processes", "2"], "--processes: fit trains every network in one process; --jobs makes several at a time"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(reweight, arguments, message, tmp_path):
    out = [] if "--out" in arguments else ["--out", "best"]
    data = ["--data", "csv", "--data-root", "table", "--test-from", "none"]
    (tmp_path / "given.toml").write_text('out = "elsewhere"\n')
    done = reweight("fit", *data, *arguments, *out)
    assert (done.status, done.out) == (2, "")
    assert message in done.err.splitlines()[-1] and "Traceback" not in done.err
    assert not (tmp_path / "best").exists()


def test_trials_of_other_options_are_refused(reweight):
    reweight_core.fit("best", **FEW, **SHORT)
    shutil.rmtree("best")
    with pytest.raises(UserError, match=r"best.search: has trials with other option --seed; give another --out"):
        reweight_core.fit("best", **FEW, **SHORT, seed=3)


def test_methods_are_not_the_users_here(reweight):
    done = reweight("fit", "--method", "gdw", "--out", "best")
    assert done.status == 2 and "--method" in done.err
    with pytest.raises(UserError, match="--method: is chosen by fit"):
        reweight_core.fit("best", method="gdw")
