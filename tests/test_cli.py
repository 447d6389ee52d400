"""The program from end to end, on scikit-learn's digits."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import reweight_core
from reweight_core.cli.main import main
from reweight_core.config.options import Owner, fill
from reweight_core.config.resolve import known_options
from reweight_core.config.run_config import RunConfig
from reweight_core.plugins import registry
from reweight_core.runs.judgement import Judgement

METHODS = registry.names("method")
IN_STAGES = {"glc", "pencil", "posterior-label"}
"""Methods that train for longer than the options say."""
OWN_LOSS = {"gen-label", "soft-label"}
"""Methods whose loss is not the cross-entropy with the observed label."""

DATA = ["--noise", "uniform:0.4", "--val-size", "20"]
TRAIN = [*DATA, "--epochs", "2", "--checkpoint-every", "1epochs", "--device", "cpu"]


@pytest.fixture
def reweight(reweight, tmp_path, monkeypatch):
    """Run the program in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return reweight


@pytest.fixture(scope="module", params=[name for name in METHODS if name not in IN_STAGES])
def run(request, tmp_path_factory):
    """The folder of a short run of each method."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    main(["train", "--method", request.param, *TRAIN, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def config(run):
    return json.loads((run / "config.json").read_text())


@pytest.fixture(scope="module")
def epochs(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def summary(run):
    return json.loads((run / "summary.json").read_text())


def model_of(folder):
    return load_file(folder / "checkpoints" / "step-00000028" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def test_the_methods_are_found():
    assert {"clean-only", "erm", "gdw", "l2rw", "mwnet", "random"} <= set(METHODS)


def test_a_run_is_a_folder_of_json_csv_and_safetensors(run):
    checkpoint = ["best.safetensors", "manifest.json", "model.safetensors", "state.safetensors"]
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == sorted(
        [
            "config.json",
            "metrics.jsonl",
            "samples.json",
            "samples.safetensors",
            "summary.json",
            "test_confusion.csv",
            "val_confusion.csv",
            *(f"checkpoints/step-{step:08d}/{name}" for step in (14, 28) for name in checkpoint),
        ]
    )
    for path in run.rglob("*.safetensors"):
        load_file(path)
    for path in run.rglob("*.json"):
        json.loads(path.read_text())


def test_the_configuration_holds_every_option_and_version(run, config):
    options = config["options"]
    assert set(options) == set(known_options(RunConfig, {"method": options["method"], "data": "digits"}))
    assert (options["noise"], options["epochs"], options["data"]) == ("uniform:0.4", 2, "digits")
    assert options["meta_size"] == 100, "the dataset's default"
    assert set(config["plugins"]) == {"method", "loss", "data", "noise", "model"}
    assert config["plugins"]["data"].startswith("reweight-data-noisy ")
    assert {"python", "reweight-core", "torch", "torchvision", "numpy", "pluggy"} <= set(config["versions"])
    assert config["device"] == "cpu"


def test_the_configuration_describes_the_data(config):
    sizes = {name: config["data"][name] for name in ("train_size", "meta_size", "val_size", "test_size")}
    assert sizes == {"train_size": 1318, "meta_size": 100, "val_size": 20, "test_size": 359}
    assert 0.3 < config["data"]["noise_rate"] < 0.42
    assert len(config["data"]["fingerprint"]) == 64


def test_each_epoch_has_a_line_of_metrics(epochs, config):
    assert [m["epoch"] for m in epochs] == [1, 2]
    assert [m["step"] for m in epochs] == [14, 28]
    assert epochs[0]["lr"] == config["options"]["lr"]
    assert epochs[1]["lr"] < epochs[0]["lr"]
    for metrics in epochs:
        assert isinstance(metrics["stage"], str)
        assert math.isfinite(metrics["train_loss"])
        assert metrics["seconds"] > 0
        for name in ("val_accuracy", "test_accuracy", "val_balanced_accuracy", "test_balanced_accuracy"):
            assert 0 <= metrics[name] <= 1


def test_the_figures_of_the_weights_are_those_of_the_records(run, epochs, summary):
    columns = load_file(run / "samples.safetensors")
    seen = columns["visits"] > 0
    corrupted = (columns["observed"] != columns["true"])[seen]
    last, mean = (columns[name][seen].astype(np.float64) for name in ("last_weight", "mean_weight"))
    if not seen.any():
        assert {epochs[-1][f"mean_weight_{name}"] for name in ("clean", "corrupted")} == {None}
        assert epochs[-1]["noise_auroc"] is summary["noise_auroc"] is None
        return
    assert epochs[-1]["mean_weight_clean"] == pytest.approx(last[~corrupted].mean(), rel=1e-5)
    assert epochs[-1]["mean_weight_corrupted"] == pytest.approx(last[corrupted].mean(), rel=1e-5)
    for found, weights in ((epochs[-1]["noise_auroc"], last), (summary["noise_auroc"], mean)):
        # the share of pairs of a clean and a corrupted example whose weights are in this order; equal ones count half
        order = np.sign(np.subtract.outer(weights[~corrupted], weights[corrupted]))
        assert found == pytest.approx((order.mean() + 1) / 2)


def test_the_meta_loss_is_known_exactly_for_methods_that_look_ahead(epochs, config):
    looks_ahead = registry.find("method", config["options"]["method"]).looks_ahead != "no"
    assert all((metrics["meta_loss"] is not None) == looks_ahead for metrics in epochs if "meta_loss" in metrics)
    assert all("meta_loss" in metrics for metrics in epochs)


def test_each_training_example_has_a_record(run, config):
    columns = load_file(run / "samples.safetensors")
    names = json.loads((run / "samples.json").read_text())
    assert set(columns) == {
        "id",
        "observed",
        "true",
        "mean_weight",
        "mean_loss",
        "mean_margin",
        "last_weight",
        "loss",
        "probability",
        "margin",
        "predicted",
        "visits",
    }
    assert {column.shape for column in columns.values()} == {(config["data"]["train_size"],)}
    assert len(names["names"]) == config["data"]["train_size"]
    assert names["classes"] == list("0123456789")
    assert (np.diff(columns["id"]) > 0).all()
    assert np.mean(columns["observed"] != columns["true"]) == config["data"]["noise_rate"]
    seen = columns["visits"] > 0
    assert set(columns["visits"]) == ({0} if config["options"]["method"] == "clean-only" else {2})
    assert (columns["predicted"][seen] >= 0).all()
    if config["options"]["method"] not in OWN_LOSS:
        assert np.allclose(columns["probability"], np.where(seen, np.exp(-columns["loss"]), 0), atol=1e-5)
    assert ((columns["margin"] > 0) == (seen & (columns["predicted"] == columns["observed"]))).all()


def test_the_summary_is_that_of_the_last_epoch(summary, epochs, config):
    assert summary["test_accuracy"] == epochs[-1]["test_accuracy"]
    assert summary["test_accuracy_mean5"] == pytest.approx(sum(m["test_accuracy"] for m in epochs) / 2)
    assert summary["val_accuracy"] == epochs[-1]["val_accuracy"]
    assert (summary["epochs"], summary["steps"]) == (2, 28)
    assert (summary["method"], summary["data"]) == (config["options"]["method"], "digits")
    steps_alone = sum(m["seconds"] for m in epochs)
    assert summary["seconds"] > steps_alone
    assert summary["seconds_per_step"] == pytest.approx(steps_alone / 28)
    # torch alone takes more than this
    assert summary["peak_memory_bytes"] > 50e6


def test_the_checkpoints_manifest_says_what_prediction_needs(run, config):
    manifest = json.loads((run / "checkpoints" / "step-00000028" / "manifest.json").read_text())["manifest"]
    assert (manifest["step"], manifest["epoch"]) == (28, 2)
    assert manifest["classes"] == list("0123456789")
    assert manifest["input_shape"] == [1, 8, 8]
    assert (manifest["model"], manifest["mean"], manifest["std"]) == ("mlp", [0.0], [16.0])
    assert manifest["data_fingerprint"] == config["data"]["fingerprint"]


def test_evaluation_gives_the_figures_of_the_run_again(reweight, run, summary):
    result = json.loads(reweight("eval", run, "--device", "cpu", "--json").out)
    for part, size in (("test", 359), ("val", 20)):
        confusion = np.array(result.pop(f"{part}_confusion"))
        written = list(csv.reader((run / f"{part}_confusion.csv").open()))
        assert written == [["true class", *"0123456789"], *([str(c), *map(str, confusion[c])] for c in range(10))]
        assert confusion.trace() / size == summary[f"{part}_accuracy"]
        assert result.pop(f"{part}_size") == confusion.sum() == size
    assert (result.pop("step"), result.pop("epoch")) == (summary["steps"], summary["epochs"])
    figures = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "classes")
    assert result == {name: summary[name] for name in (f"{part}_{f}" for part in ("test", "val") for f in figures)}
    shown = reweight("eval", run).out
    assert f"test accuracy {summary['test_accuracy']:.4f} on 359 examples" in shown
    assert f"validation accuracy {summary['val_accuracy']:.4f} on 20 examples" in shown


def test_a_validation_set_that_is_another_now_is_left_out(reweight):
    reweight("train", *TRAIN, "--epochs", 1, "--model", "mlp", "--out", "run")
    config = json.loads(Path("run/config.json").read_text())
    config["options"]["seed"] += 1
    Path("run/config.json").write_text(json.dumps(config))
    shown = reweight("eval", "run")
    assert shown.status == 0
    assert "test accuracy" in shown.out and "validation" not in shown.out
    assert "the training data are not those of the run now, so its validation set is left out" in shown.err


def test_another_seed_gives_another_run(reweight):
    for seed in (0, 1):
        reweight("train", *TRAIN, "--seed", seed, "--out", f"seed-{seed}")
    assert not same(model_of(Path("seed-0")), model_of(Path("seed-1")))


def test_training_tells_where_the_run_is_and_each_epoch_in_a_line(reweight):
    shown = reweight("train", "--epochs", 2)
    assert shown.err == ""
    first, *rest = shown.out.splitlines()
    # 64 pixels, twice 256 hidden units and 10 classes, each unit with a bias
    parameters = (64 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 10
    assert first == f"mlp, {parameters:,} parameters, cpu; 1,338 training and 100 trusted examples, 10 classes"
    assert [line.split()[:2] for line in rest[:2]] == [["epoch", "1"], ["epoch", "2"]]
    assert shown.out.splitlines()[-1] == "test again with: reweight eval runs/erm-digits-1"
    assert Path("runs/erm-digits-1/summary.json").exists()


@pytest.mark.parametrize("command", ["train", "resume"])
def test_a_result_can_be_one_line_or_json_and_nothing_else(reweight, command):
    for flag in ("--quiet", "--json"):
        folder = Path(flag.strip("-"))
        shown = reweight("train", "--epochs", 2, "--checkpoint-every", "1epochs", "--out", folder, flag)
        if command == "resume":
            (folder / "summary.json").unlink()
            shutil.rmtree(max((folder / "checkpoints").glob("step-*")))
            shown = reweight("resume", folder, flag)
        assert (shown.status, shown.err) == (0, "")
        summary = json.loads((folder / "summary.json").read_text())
        if flag == "--json":
            assert json.loads(shown.out) == {"run": "json", **summary}
        else:
            assert shown.out == f"quiet: test accuracy {summary['test_accuracy']:.4f}\n"


def test_quiet_keeps_warnings(reweight):
    shown = reweight("train", "--epochs", 1, "--meta-every", 2, "--quiet")
    assert shown.err.startswith("Warning: --meta-every 2: does nothing here")


def test_steps_end_a_run_before_its_epochs_do(reweight):
    reweight("train", "--steps", 17, "--epochs", 50, "--out", "run")
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [14, 17]


def test_the_accuracy_of_a_run_is_that_of_its_last_epoch_not_of_its_best(reweight, monkeypatch):
    # the network that the run ends with is tested once more
    wrong = iter([9, 1, 8, 8])

    def judge(model, examples, workers):
        labels, ones = np.zeros(10, np.int64), np.ones(10)
        return Judgement.of(10, labels, (np.arange(10) < next(wrong)).astype(np.int64), ones)

    monkeypatch.setattr("reweight_core.runs.evaluate.judge", judge)
    reweight("train", "--epochs", 3, "--out", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["test_accuracy"] == 0.2
    assert summary["test_accuracy_mean5"] == pytest.approx(0.4)


def test_a_file_gives_options_and_the_command_line_wins(reweight):
    Path("options.toml").write_text('method = "gdw"\nepochs = 7\nlr = 0.02\n[gdw]\nclip = 0.3\n')
    reweight("train", "--config", "options.toml", "--epochs", "1", "--out", "run")
    options = json.loads(Path("run/config.json").read_text())["options"]
    assert {name: options[name] for name in ("method", "epochs", "lr", "clip", "weight_lr")} == {
        "method": "gdw",
        "epochs": 1,
        "lr": 0.02,
        "clip": 0.3,
        "weight_lr": None,
    }


def test_epochs_on_the_command_line_win_over_the_steps_of_a_file(reweight, monkeypatch):
    configured = []

    def train(config, observers):
        configured.append(config)
        raise reweight_core.UserError("far enough")

    monkeypatch.setattr("reweight_core.training.loop.train", train)
    Path("options.toml").write_text("steps = 100\n")
    reweight("train", "--config", "options.toml")
    reweight("train", "--config", "options.toml", "--epochs", "5")
    reweight("train", "--config", "options.toml", "--epochs", "5", "--steps", "9")
    assert [config.steps for config in configured] == [100, None, 9]
    assert [config.epochs for config in configured[1:]] == [5, 5]


def test_the_help_says_what_stands_for_a_value(reweight):
    shown = reweight("train", "--help").out
    for text in ("--noise KIND:ARGUMENT", "--method NAME", "--data NAME", "--with NAME", "--model NAME", "--lr FLOAT"):
        assert text in shown


def test_the_help_shows_the_options_of_the_chosen_plugins_alone(reweight):
    shown = reweight("train", "--method", "gdw", "--data", "cifar10", "--help").out
    core, _, own = shown.partition("Options of gdw:")
    assert "--eta-w FLOAT" in own
    assert "--epochs INTEGER" in core
    assert "--download / --no-download" in shown.partition("Options of cifar10:")[2]
    assert "--eta-w" not in reweight("train", "--help").out


def sections_of(shown):
    """The text of a command's help by the title that stands above it."""
    sections, title = {}, ""
    for line in shown.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
        sections[title] = sections.get(title, "") + line + "\n"
    return sections


def test_the_help_has_the_options_in_groups_and_each_option_once(reweight):
    shown = reweight("train", "--method", "gdw", "--help").out
    sections = sections_of(shown)
    groups = ["Data", "Method", "Network", "Optimisation", "Look-ahead", "Machine", "Output"]
    assert list(sections) == ["", "Options", *groups, "Options of gdw"]
    for item in known_options(RunConfig, {"method": "gdw"}).values():
        title = item.group.capitalize() if item.owner == "reweight" else "Options of gdw"
        assert [name for name, text in sections.items() if f"\n  {item.flag} " in text] == [title]
    looked_for = {"--augment": "Data", "--lr": "Optimisation", "--out": "Output", "--device": "Machine"}
    assert all(f"\n  {flag} " in sections[title] for flag, title in looked_for.items())


@pytest.mark.parametrize(
    "arguments", ["train", "train --method fsr --preset webvision --with mixup", "inspect", "check-grad --data folder"]
)
def test_the_lines_of_the_help_fit_a_terminal(reweight, arguments):
    shown = reweight(*arguments.split(), "--help")
    assert shown.status == 0
    assert max(len(line) for line in shown.out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("flag", "kind"),
    [("--data", "data"), ("--noise", "noise"), ("--method", "method"), ("--with", "component"), ("--model", "model")],
)
def test_the_help_names_what_may_be_chosen(reweight, flag, kind):
    shown = reweight("train", "--help").out
    entry = shown.partition(f"\n  {flag} ")[2].partition("\n  --")[0]
    listed = entry.partition("Installed:")[2].partition("[default")[0]
    assert [name.strip(",") for name in listed.split()] == registry.names(kind)


def test_the_help_names_the_presets_of_the_chosen_method(reweight):
    shown = reweight("train", "--method", "fsr", "--help").out
    entry = shown.partition("\n  --preset ")[2].partition("\n\n")[0]
    assert all(preset in entry for preset in registry.find("method", "fsr").presets)
    assert "Method 'erm' has none." in " ".join(reweight("train", "--help").out.split())


def test_without_arguments_the_program_explains_itself(reweight):
    shown = reweight()
    assert shown.status == 0
    assert shown.out == reweight("--help").out
    assert "Start with: reweight train" in shown.out


def test_inspection_describes_the_data_of_a_run(reweight, run, config):
    shown = json.loads(reweight("inspect", *DATA, "--json").out)
    assert shown["fingerprint"] == config["data"]["fingerprint"]
    assert shown["noise_rate"] == config["data"]["noise_rate"]
    assert shown["classes"] == list("0123456789")
    assert sum(shown["train_counts"]) == sum(shown["observed_counts"]) == shown["train_size"] == 1318
    assert (shown["meta_counts"], shown["val_counts"], shown["test_size"]) == ([10] * 10, [2] * 10, 359)
    transition = np.array(shown["transition"])
    assert np.allclose(transition.sum(1), 1)
    wrong = 1 - np.diag(transition) @ np.array(shown["train_counts"]) / 1318
    assert wrong == pytest.approx(shown["noise_rate"])


def test_inspection_shows_a_long_tail(reweight):
    counts = json.loads(reweight("inspect", "--data", "digits-lt", "--json").out)["train_counts"]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == counts[0] // 10


def test_inspection_can_be_read_by_a_person(reweight):
    shown = reweight("inspect", *DATA)
    assert (shown.status, shown.err) == (0, "")
    for part in ("training examples  1318", "observed label by true label", "fingerprint"):
        assert part in shown.out


@pytest.mark.parametrize("run", ["gdw"], indirect=True)
def test_inspection_shows_what_the_classes_of_a_run_weighed(reweight, run):
    found = json.loads(reweight("inspect", run, "--classes", "--json").out)
    assert found["classes"] == list("0123456789")
    assert sum(found["examples"]) == 1318
    shown = reweight("inspect", run, "--classes")
    assert (shown.status, shown.err) == (0, "")
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["7", str(found["examples"][7]), f"{found['last_weights'][7]:.4g}"] in [row[:3] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes"], "reweight inspect RUN --classes"),
        (["RUN"], "reweight inspect RUN --classes"),
        (["RUN", "--classes", "--noise", "uniform:0.2"], "a run has its own data; leave their options out"),
        (["nowhere", "--classes"], "nowhere: not the folder of a run"),
        (["RUN", "--classes"], "it trained on the clean meta set alone"),
    ],
)
@pytest.mark.parametrize("run", ["clean-only"], indirect=True)
def test_inspection_of_a_run_without_what_it_needs_is_one_line(reweight, run, arguments, message):
    done = reweight("inspect", *(run if part == "RUN" else part for part in arguments))
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_the_list_names_every_plugin_with_its_summary(reweight):
    listed = json.loads(reweight("list", "--json").out)
    assert {kind: sorted(found) for kind, found in listed.items()} == {
        kind: registry.names(kind) for kind in registry.GROUPS
    }
    assert all(summary for found in listed.values() for summary in found.values())
    rows = [line.split()[:2] for line in reweight("list").out.splitlines()]
    typed = {"component": "--with", "observer": "--observe", "table": "reproduce", "command": "reweight"}
    for kind, found in listed.items():
        assert all([typed.get(kind, f"--{kind}"), name] in rows for name in found)


def test_the_plugins_are_shown_with_their_origin(reweight):
    rows = json.loads(reweight("plugins", "--json").out)
    assert rows == [attrs.asdict(row) for row in registry.status()]
    assert {row["status"] for row in rows} == {"ok"}
    shown = reweight("plugins").out
    assert all(row["name"] in shown and row["distribution"] in shown for row in rows)


@pytest.fixture
def faulty_method(tmp_path, monkeypatch):
    """The name of an installed method that loads, and has an option of a type that no flag can have."""
    name = "a-method-with-quite-a-long-name-and-a-mistake"
    folder = tmp_path / "site"
    info = folder / "a_distribution_with_quite_a_long_name-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-distribution-with-quite-a-long-name\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[reweight.methods]\n{name} = faulty_method:plugin\n")
    (folder / "faulty_method.py").write_text(
        "import attrs\nfrom reweight_core import MethodPlugin, option\n\n"
        "@attrs.frozen\nclass Options:\n    sizes: list[int] = option([], 'Sizes.')\n\n"
        f"plugin = MethodPlugin('{name}', 'is wrong', lambda config, context: object(), Options)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    yield name
    sys.modules.pop("faulty_method", None)


def test_a_plugin_whose_options_cannot_be_read_is_shown_as_broken(reweight, faulty_method):
    row = next(row for row in json.loads(reweight("plugins", "--json").out) if row["name"] == faulty_method)
    assert row["status"] == "broken"
    assert "declares the field 'sizes'" in row["error"]
    shown = reweight("plugins").out
    assert f"\nmethod '{faulty_method}' of a-distribution-with-quite-a-long-name: declares the field 'sizes'" in shown
    rows = [line.split() for line in shown.splitlines()]
    states = [row[-1] for row in rows if row[:1] == ["method"] and len(row) == 5]
    assert sorted(states) == ["broken", *["ok"] * (len(registry.names("method")) - 1)]


@pytest.mark.parametrize("arguments", [("--help",), ("--epochs", "1")])
def test_a_plugin_whose_options_cannot_be_read_is_refused_in_one_line(reweight, faulty_method, arguments):
    message = f"method '{faulty_method}' declares the field 'sizes', which must be"
    assert_refused(reweight("train", "--method", faulty_method, *arguments), message)


def test_a_plugin_whose_options_cannot_be_read_harms_no_other(reweight, faulty_method):
    assert reweight("train", "--help").status == 0
    assert_refused(reweight("train", "--eta-w", "3"), "--eta-w is an option of --method gdw")


def test_bench_measures_every_installed_method_unless_told(reweight, monkeypatch):
    measured = []
    monkeypatch.setattr("reweight_core.measure.bench.run", lambda setting, cells, n: measured.extend(cells) or [])
    assert reweight("bench", "--json").status == 0
    assert sorted({cell.method for cell in measured}) == METHODS


def test_bench_reads_lists_and_values_as_other_commands_do(reweight, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "reweight_core.measure.bench.run", lambda setting, cells, n: measured.append((setting, cells)) or []
    )
    arguments = ["--methods", "erm, l2rw", "--strategies", "jvp, fd", "--set", "clean-decay=false", "--json"]
    assert reweight("bench", *arguments).err == ""
    ((setting, cells),) = measured
    on = {(cell.method, cell.strategy) for cell in cells}
    assert on == {("erm", None), ("l2rw", "jvp"), ("l2rw", "fd")}
    record = registry.find("method", "l2rw")
    assert fill(Owner("l2rw", record.config), setting.options).clean_decay is False


def test_a_console_prints_text_as_it_is(capsys):
    reweight_core.console().print("[red]cat[/red] :dog: 'x' 1.5")
    assert capsys.readouterr().out == "[red]cat[/red] :dog: 'x' 1.5\n"


@pytest.fixture
def images(tmp_path):
    """A folder of images of two classes."""
    rng = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(rng.randint(256, size=(8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def assert_refused(result, *parts):
    """Check for exit status 2, one clear line, and nothing left behind."""
    assert result.status == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--method gwd", ["no method is called 'gwd' (did you mean 'gdw'?)", "installed: "]),
        ("--method gce", ["no method is called 'gce' (it is a loss); installed: "]),
        ("--data digit", ["no data is called 'digit' (did you mean 'digits'?)"]),
        ("--model resnett32", ["no model is called 'resnett32' (did you mean 'resnet32'?)"]),
        ("--epoch 3", ["--epoch", "--epochs", "(see reweight train --help)"]),
        ("--eta-w 3", ["--eta-w is an option of --method gdw, which this run does not use"]),
        ("--image-size 3", ["--image-size is an option of --data clothing1m, csv, csv-lt, folder, ..., which this"]),
        ("--method", ["--method", "(see reweight train --help)"]),
        ("surplus", ["surplus"]),
        ("--epochs many", ["--epochs", "many"]),
        ("--epochs 0", ["--epochs must be > 0: 0"]),
        ("--lr nan", ["--lr nan: must be a finite number"]),
        ("--augment rotate", ["--augment", "rotate", "crop-flip"]),
        ("--seed -1", ["--seed must be >= 0: -1"]),
        ("--seed 4294967296", ["--seed must be <"]),
        ("--imb 0", ["--imb must be > 0"]),
        ("--imb 2", ["--imb must be <= 1"]),
        ("--imb 0.0001", ["--imb 0.0001", "0 examples"]),
        ("--noise uniform:1.5", ["--noise uniform:1.5: the rate must be between 0 and 1"]),
        ("--noise uniform:nan", ["--noise uniform:nan: the rate must be between 0 and 1"]),
        ("--noise nope:0.1", ["no noise is called 'nope'", "uniform"]),
        ("--noise unifrom:0.1", ["(did you mean 'uniform'?)"]),
        ("--noise uniform", ["--noise uniform: must be KIND:ARGUMENT"]),
        ("--meta-size 5000", ["--meta-size 5000", "1438"]),
        ("--meta-size 5", ["--meta-size 5", "10 classes"]),
        ("--val-size 5000", ["--val-size 5000"]),
        ("--method gdw --meta-size 0", ["'gdw' needs clean examples", "--meta-size N"]),
        ("--device nope", ["--device nope"]),
        ("--device meta", ["--device meta: only cpu and cuda"]),
        ("--device cuda", ["--device cuda: this machine has 0 CUDA devices"]),
        ("--device cuda:7", ["--device cuda:7"]),
        ("--device nope --data folder --data-root not-even-read", ["--device nope"]),
        ("--model torch.nn:Nothing", ["module 'torch.nn' has no 'Nothing'"]),
        ("--model not_there:net", ["cannot import 'not_there'"]),
        ("--config missing.toml", ["--config missing.toml"]),
        ("--data folder", ["--data-root"]),
        ("--data folder --data-root missing", ["--data-root missing: no such folder"]),
        ("--data cifar10 --data-root missing", ["missing/cifar-10-batches-py", "--download"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(reweight, monkeypatch, arguments, parts):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert_refused(reweight("train", *arguments.split()), *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("trian", ["no command is called 'trian' (did you mean 'train'?)"]),
        ("--nope", ["--nope", "reweight COMMAND --nope", "(see reweight --help)"]),
        ("--method gdw", ["--method is no option here", "reweight COMMAND --method"]),
        ("eval", ["RUN", "(see reweight eval --help)"]),
        ("eval missing", ["missing: not the folder of a run"]),
        ("inspect --epochs 3", ["--epochs", "(see reweight inspect --help)"]),
        ("inspect --noise uniform:2", ["--noise uniform:2"]),
        ("list --jsno", ["--jsno", "--json"]),
        ("resume missing", ["missing: not the folder of a run"]),
        ("predict missing a.png", ["missing: not the folder of a run"]),
        ("bench --image 3x32", ["--image 3x32: must be CHANNELSxHEIGHTxWIDTH"]),
        ("bench --image 3x0x32", ["--image 3x0x32: must be"]),
        ("bench --image 3x4x5xlarge", ["--image 3x4x5xlarge: must be"]),
        ("bench --methods gwd", ["no method is called 'gwd' (did you mean 'gdw'?)"]),
        ("bench --methods gdw --set clip", ["--set clip: must be NAME=VALUE"]),
        ("bench --methods gdw --set clpi=1", ["no method of --methods has the option 'clpi' (did you mean 'clip'?)"]),
        ("bench --methods l2rw --set clean-decay=maybe", ["--clean-decay 'maybe': must be true or false"]),
        ("bench --repetitions 0", ["--repetitions", "x>=1"]),
        ("bench --methods erm --strategies jpv", ["--strategies jpv: must be among", "(did you mean 'jvp'?)"]),
    ],
)
def test_every_command_refuses_in_one_line(reweight, arguments, parts):
    assert_refused(reweight(*arguments.split()), *parts)


def test_a_folder_of_images_trains(reweight, images):
    arguments = [
        "--data",
        "folder",
        "--data-root",
        images,
        "--model",
        "lenet",
        "--batch-size",
        4,
        "--epochs",
        1,
    ]
    assert reweight("train", *arguments, "--out", "run").status == 0
    names = json.loads(Path("run/samples.json").read_text())["names"]
    assert names[0] == "train/cat/0.png"
    assert (load_file("run/samples.safetensors")["true"] == -1).all()


def test_an_empty_folder_of_images_is_refused(reweight, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(reweight("train", "--data", "folder", "--data-root", "empty"), "empty/train")


def test_an_unreadable_image_is_named(reweight, images):
    (images / "train" / "dog" / "2.png").write_text("no image")
    assert_refused(reweight("train", "--data", "folder", "--data-root", images), str(images / "train/dog/2.png"))


def test_a_class_without_test_images_is_named(reweight, images):
    for path in (images / "test" / "dog").iterdir():
        path.unlink()
    assert_refused(reweight("train", "--data", "folder", "--data-root", images), str(images / "test/dog"))
    (images / "test" / "dog").rmdir()
    assert_refused(reweight("train", "--data", "folder", "--data-root", images), str(images / "test/dog"))


def test_an_output_folder_that_is_in_use_is_refused_and_left_alone(reweight):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep")
    assert_refused(reweight("train", "--out", "mine"), "--out mine", "not empty")
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_a_broken_file_of_options_is_refused(reweight):
    Path("options.toml").write_text("[gdw]\nclpi = 0.3\n")
    assert_refused(
        reweight("train", "--method", "gdw", "--config", "options.toml"),
        "--config options.toml: 'gdw' has no option 'clpi' (did you mean 'clip'?)",
    )


def test_a_run_that_diverges_ends_with_one_line_that_says_so(reweight):
    result = reweight("train", "--lr", "1e30", "--epochs", 1, "--out", "run")
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert "lower --lr" in line
    assert not Path("run/summary.json").exists()


@pytest.mark.parametrize("damaged", ["model.safetensors", "manifest.json"])
def test_a_run_without_a_whole_checkpoint_cannot_be_tested(reweight, damaged):
    reweight("train", "--steps", 1, "--out", "run")
    Path("run/checkpoints/step-00000001", damaged).write_text("torn")
    assert_refused(reweight("eval", "run"), "run/checkpoints: no checkpoint is whole")


def test_evaluation_normalises_as_the_run_did_though_the_folder_has_changed(reweight, images):
    train = ["train", "--data", "folder", "--data-root", images, "--model", "mlp", "--epochs", "3", "--out", "run"]
    assert reweight(*train).status == 0
    before = json.loads(reweight("eval", "run", "--json").out)
    for number in range(20):
        Image.new("RGB", (8, 8), "white").save(images / "train" / "cat" / f"white{number}.png")
    assert json.loads(reweight("eval", "run", "--json").out) == before


def test_help_works_before_any_dataset_is_installed(reweight, monkeypatch):
    monkeypatch.setattr(registry, "_installed", lambda kind: {} if kind == "data" else INSTALLED(kind))
    assert reweight("train", "--help").status == 0
    assert_refused(reweight("train", "--method", "erm"), "no data plugin is installed")


INSTALLED = registry._installed


def test_an_option_of_another_method_is_told_apart_from_a_misspelling(reweight):
    assert_refused(reweight("train", "--method", "erm", "--eta-w", "3"), "--eta-w", "gdw")


def test_an_interrupt_says_what_is_kept(reweight, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("reweight_core.training.loop.train_epoch", interrupt)
    result = reweight("train", "--out", "kept")
    assert result.status == 130
    assert result.err.strip() == "interrupted; there is no checkpoint in kept yet"
    assert reweight("list").status == 0


def test_an_interrupt_says_how_to_go_on(reweight, monkeypatch):
    from reweight_core.training import loop

    train_epoch = loop.train_epoch

    def interrupt(state, *others):
        if state.epochs_done == 1:
            raise KeyboardInterrupt
        return train_epoch(state, *others)

    monkeypatch.setattr(loop, "train_epoch", interrupt)
    result = reweight("train", "--epochs", "2", "--checkpoint-every", "1epochs", "--out", "begun")
    assert result.status == 130
    assert result.err.strip() == "interrupted; reweight resume begun goes on from the last checkpoint"
    monkeypatch.undo()


def test_full_memory_is_one_line(reweight, monkeypatch):
    def allocate(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr("reweight_core.training.loop.train_epoch", allocate)
    result = reweight("train", "--out", "run")
    (line,) = result.err.splitlines()
    assert result.status == 2 and line.startswith("Error: ") and "memory is full" in line and "--batch-size" in line
