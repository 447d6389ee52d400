import pytest
from reweight_method_fsr import plugin

from reweight_core import RunConfig, configure
from reweight_core.config import known_options


@pytest.mark.parametrize("preset", plugin.presets)
def test_a_preset_is_a_valid_configuration_and_help_shows_its_values(preset):
    values = plugin.presets[preset]
    config = configure(method="fsr", preset=preset)
    shown = known_options(RunConfig, {"method": "fsr", "preset": preset})
    for name, value in values.items():
        assert shown[name].default == value
    assert config.with_ == values["with"]
    assert config.epochs == values["epochs"]


def test_the_presets_have_the_numbers_of_the_paper():
    noise = configure(method="fsr", preset="cifar-noise")
    fsr, relabel = noise.method_options, noise.component_options[1]
    assert (fsr.dictionary_size, fsr.probe_size, noise.batch_size, fsr.score_momentum) == (2000, 200, 100, 0.9)
    assert (relabel.decay, relabel.multiplier) == (0.1, 2.0)
    tail = configure(method="fsr", preset="cifar-lt-deferred")
    assert (tail.method_options.dictionary_size, tail.method_options.probe_size) == (3000, 800)
    assert (tail.method_options.weights, tail.method_options.warmup_epochs, tail.epochs) == ("shift", 160, 200)
    webvision = configure(method="fsr", preset="webvision")
    assert (webvision.method_options.dictionary_size, webvision.batch_size) == (5000, 16)
    assert webvision.component_options[1].multiplier == 1.0


def test_every_option_of_a_preset_can_be_overridden():
    config = configure(method="fsr", preset="cifar-lt", weights="clip", lr=0.5, **{"with": ["mixup"]})
    assert (config.method_options.weights, config.lr, config.with_) == ("clip", 0.5, ("mixup",))
    assert config.epochs == 200
