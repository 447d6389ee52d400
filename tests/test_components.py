"""Components and presets through the whole program."""

import json

import pytest
import torch
from safetensors.numpy import load_file

from reweight_core import RunConfig, configure, train
from reweight_core.cli.main import main
from reweight_core.config.resolve import known_options
from reweight_core.runs.checkpoint import load_latest
from reweight_core.runs.evaluate import evaluate
from reweight_method_fsr.plugin import fsr


def test_the_averaged_network_is_evaluated_and_kept_and_the_trained_one_is_in_the_state(tmp_path):
    options = {"data": "digits", "steps": 3, "meta_size": 0, "device": "cpu", "out": tmp_path / "run"}
    run = train(configure(**options, **{"with": ["ema"]}))
    checkpoint = load_latest(run.folder / "checkpoints")
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(checkpoint.model[name], tensor)
    name = next(name for name, _ in run.model.named_parameters())
    assert torch.equal(checkpoint.state[f"plugin.ema.average.{name}"], checkpoint.model[name])
    assert not torch.equal(checkpoint.state[f"network.{name}"], checkpoint.model[name])


@pytest.mark.parametrize("preset", fsr.presets)
def test_a_preset_is_a_valid_configuration_and_help_shows_its_values(preset):
    values = fsr.presets[preset]
    config = configure(method="fsr", preset=preset)
    shown = known_options(RunConfig, {"method": "fsr", "preset": preset})
    for name, value in values.items():
        assert shown[name].default == value
    assert config.with_ == values["with"]
    assert config.epochs == values["epochs"]


def test_every_option_of_a_preset_can_be_overridden():
    config = configure(method="fsr", preset="cifar-lt", negative_weights="clip", lr=0.5, **{"with": ["mixup"]})
    assert (config.method_options.negative_weights, config.lr, config.with_) == ("clip", 0.5, ("mixup",))
    assert config.epochs == 200


def run(*arguments):
    try:
        main(list(arguments))
    except SystemExit as finished:
        return finished.code or 0
    return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gdw", "--with", "mixup"], "method 'gdw' is defined for one label an example"),
        (["--method", "gdw", "--with", "label-smoothing"], "method 'gdw' is defined for one label an example"),
        (["--method", "clean-only", "--with", "relabel"], "trains on clean examples"),
        (["--method", "clean-only", "--loss", "elr"], "--loss elr: keeps what it learns by training example"),
        (["--method", "glc", "--with", "relabel"], "stage 'correct' of method 'glc' trains on clean examples"),
        (["--method", "co-teaching", "--loss", "forward"], "further network 'second' would go on as it is"),
        (["--method", "fsr", "--meta-every", "2"], "no rule for steps without a look-ahead"),
        (["--method", "fsr", "--lookahead", "jvp"], "looks ahead with the last linear layer only"),
        (["--method", "fsr", "--reward", "given", "--meta-size", "0"], "--reward given: there is no clean meta set"),
        (["--method", "fsr", "--preset", "cifar"], "did you mean"),
        (["--with", "mixup", "--with", "mixup"], "'mixup' is chosen twice"),
        (["--with", "mixap"], "did you mean 'mixup'"),
        (["--mixup-alpha", "1"], "--mixup-alpha is an option of --with mixup, which this run does not use"),
        (["--method", "fsr", "--virtual-step", "off"], "takes a virtual step of its own"),
        (["--preset", "cifar-lt"], "presets belong to a --method"),
        (["--schedule", "step", "--lr-drops", "five"], "must be epochs above 0 separated by commas"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_two(arguments, message, capsys, tmp_path):
    assert run("train", *arguments, "--out", str(tmp_path / "run")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["erm", "l2rw", "mwnet", "gdw", "fsr", "random"])
def test_components_go_with_every_method(method, tmp_path):
    components = ["relabel", "ema"] if method == "gdw" else ["mixup", "label-smoothing", "relabel", "ema"]
    folder = tmp_path / "run"
    given = [part for name in components for part in ("--with", name)]
    options = ["--steps", "3", "--relabel-warmup-epochs", "0", "--noise", "uniform:0.4", "--out", str(folder)]
    assert run("train", "--method", method, *given, *options) == 0
    assert 0 < evaluate(folder)["test_accuracy"] <= 1


def test_the_cyclic_schedule_changes_with_every_step_and_ends_cycles_at_zero(tmp_path):
    lines = []

    class Listener:
        from reweight_core import hookimpl

        @hookimpl
        def observe_epoch(self, metrics):
            lines.append(metrics["lr"])

    config = configure(data="digits", epochs=3, schedule="cyclic", lr=0.2, meta_size=0, out=tmp_path / "run")
    train(config, observers=[Listener()])
    # 14 or 15 steps an epoch; the rate of each epoch's last step
    steps = 15
    cosine = [0.1 * (1 + torch.cos(torch.tensor(torch.pi * x)).item()) for x in (14 / steps, 14 / 30, 29 / 30)]
    assert lines == pytest.approx([cosine[0], 0.9 * cosine[1], 0.9 * cosine[2]], abs=1e-6)


@pytest.mark.parametrize("line", ["preset = 5", 'preset = ["raw"]', "with = 3"])
def test_a_wrong_value_in_a_file_is_one_line(line, tmp_path, capsys):
    path = tmp_path / "options.toml"
    path.write_text(f'method = "fsr"\n{line}\n')
    assert run("train", "--config", str(path), "--out", str(tmp_path / "run")) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_components_of_a_preset_can_be_left_out():
    assert configure(method="fsr", preset="cifar-noise", **{"with": ["none"]}).with_ == ()
    assert configure(method="fsr", preset="cifar-lt", schedule="cosine").schedule == "cosine"


def test_a_run_is_read_back_whatever_its_preset_is_called_now(tmp_path):
    folder = tmp_path / "run"
    options = ["--dictionary-size", "20", "--probe-size", "10", "--model", "mlp", "--steps", "2", "--with", "ema"]
    assert run("train", "--method", "fsr", "--preset", "raw", *options, "--data", "digits", "--out", str(folder)) == 0
    text = (folder / "config.json").read_text()
    assert json.loads(text)["plugins"]["ema"].startswith("reweight-method-fsr ")
    (folder / "config.json").write_text(text.replace('"preset": "raw"', '"preset": "gone"'))
    assert evaluate(folder)["test_size"] > 0


def test_recorded_weights_are_the_methods_own_whatever_components_add(tmp_path):
    def first_weights(**options):
        folder = tmp_path / str(len(options))
        config = configure(method="gdw", data="digits", noise="uniform:0.4", steps=1, out=folder, **options)
        return load_file(train(config).folder / "samples.safetensors")["last_weight"]

    relabelled = {"with": ["relabel"], "relabel_warmup_epochs": 0, "relabel_multiplier": 50.0}
    assert (first_weights(**relabelled) == first_weights()).all()


def test_check_grad_has_nothing_to_compare_for_fsr(capsys):
    assert run("check-grad", "--method", "fsr", "--data", "digits") == 2
    assert "nothing to compare" in capsys.readouterr().err
