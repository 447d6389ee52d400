"""Defaults that fit a user's own data, and the dataset that a program hands over, which has them."""

import pytest

from reweight_core import UserError, configure, fitting_defaults, load_data
from reweight_core.data.fitting import SMALL_TABLE


def test_every_default_is_one_of_core():
    for kind, examples in (("features", 10), ("features", 10**4), ("images", 10), ("images", 10**6)):
        configure(data="memory", **fitting_defaults(kind, examples))


def test_small_tables_have_logistic_regression_and_large_ones_a_perceptron():
    assert fitting_defaults("features", SMALL_TABLE - 1)["model"] == "linear"
    assert fitting_defaults("features", SMALL_TABLE)["model"] == "mlp"


@pytest.mark.parametrize("examples", [2, 100, 1200, 1300, 50_000, 99_900, 10**6])
def test_images_are_trained_on_for_80_epochs_but_within_bounds(examples):
    found = fitting_defaults("images", examples)
    assert found.pop("model", "resnet32") == ("resnet8" if examples < 5000 else "resnet32")
    steps_of_80_epochs = 80 * -(-examples // 100)
    if 1000 <= steps_of_80_epochs <= 80_000:
        assert found == {"epochs": 80}
    else:
        assert found == {"steps": 1000 if examples < 50_000 else 80_000}


def test_a_million_rows_are_not_gone_through_twenty_times():
    assert fitting_defaults("features", 10**6)["steps"] == 20_000
    assert fitting_defaults("features", 5000)["epochs"] == 20


def test_data_in_memory_have_the_defaults_of_their_number_and_kind():
    small, large = (configure(data="memory", memory_examples=count) for count in (20, SMALL_TABLE))
    assert (small.model, small.weight_decay, small.steps) == ("linear", 1 / 20, 1000)
    assert large.model == "mlp"
    images = configure(data="memory", memory_kind="images", memory_examples=20, lr=0.5)
    assert (images.model, images.steps, images.lr) == ("resnet8", 1000, 0.5)


def test_data_in_memory_cannot_be_loaded_without_the_program_that_has_them():
    with pytest.raises(UserError, match="--data memory: is what a Python program hands over"):
        load_data(configure(data="memory"))
