import pytest

from reweight_core import RunConfig
from reweight_core.config.options import convert
from reweight_core.config.resolve import known_options


def values(preset):
    options = known_options(RunConfig, {"method": "fsr", "preset": preset})
    return {name: convert(item, item.default) for name, item in options.items()}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("cifar-noise", (2000, 200, 100, 127, 20, "clip")),
        ("raw", (2000, 200, 100, 127, 20, "clip")),
        ("cifar-lt", (3000, 800, 128, 200, 20, "shift")),
        ("cifar-lt-deferred", (3000, 800, 128, 200, 160, "shift")),
        ("cifar-lt-noise", (2000, 200, 128, 200, 160, "clip")),
        ("webvision", (5000, 200, 128, 127, 20, "clip")),
        ("inaturalist", (2000, 350, 32, 90, 60, "shift")),
    ],
)
def test_a_preset_has_the_numbers_of_paper_and_script(preset, expected):
    names = ("dictionary_size", "probe_size", "batch_size", "epochs", "warmup_epochs", "negative_weights")
    found = values(preset)
    assert tuple(found[name] for name in names) == expected
    assert (found["score_momentum"], found["virtual_lr"], found["virtual_momentum"]) == (0.9, 0.1, 0.9)


@pytest.mark.parametrize(("preset", "multiplier"), [("cifar-noise", 2.0), ("cifar-lt-noise", 2.0), ("webvision", 1.0)])
def test_settings_with_noise_mix_and_relabel(preset, multiplier):
    found = values(preset)
    assert {"mixup", "relabel", "ema"} == set(found["with"])
    assert (found["relabel_decay"], found["relabel_multiplier"], found["mixup_alpha"]) == (0.1, multiplier, 0.5)


def test_long_tails_are_smoothed_and_neither_mixed_nor_relabelled():
    found = values("cifar-lt")
    assert set(found["with"]) == {"label-smoothing", "ema"}
    assert (found["label_smoothing_amount"], found["reward_smoothing"]) == (0.1, 0.1)
    assert (found["schedule"], found["lr_drops"], found["lr_drop_factor"]) == ("step", "160,180", 0.01)
