"""Whoever fails is named: by kind, name, what was called, and the line."""

import numpy as np
import pytest

from reweight_core.errors import PluginError, UserError
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.noise import Noise


def call(function, name="mine"):
    with blamed(f"component '{name}'", "transform_batch", __name__):
        return function()


def test_a_crash_says_whose_it_is_where_and_why_and_keeps_its_cause():
    with pytest.raises(PluginError) as caught:
        call(lambda: {}["x"])
    line = test_a_crash_says_whose_it_is_where_and_why_and_keeps_its_cause.__code__.co_firstlineno + 2
    assert str(caught.value) == f"component 'mine': transform_batch: KeyError: 'x' (test_blame.py, line {line})"
    assert isinstance(caught.value.__cause__, KeyError)


def test_the_line_is_one_of_the_plugin_and_not_of_a_library():
    with pytest.raises(PluginError, match=r"ValueError: .* \(test_blame\.py, line \d+\)$"):
        call(lambda: np.concatenate([np.zeros((1, 2)), np.zeros((3, 4))]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--rate 3: must be less", "component 'mine': --rate 3: must be less"),
        ("--with mine: there is no clean meta set", "--with mine: there is no clean meta set"),
        # the name as a part of another word is not the name
        ("there is no mine-set", "component 'mine': there is no mine-set"),
    ],
)
def test_a_mistake_of_the_user_keeps_its_words_and_names_the_plugin_once(text, told):
    def refuse():
        raise UserError(text)

    with pytest.raises(PluginError) as caught:
        call(refuse)
    assert str(caught.value) == told
    # the plugin around it does not claim it
    with pytest.raises(PluginError) as again:
        call(lambda: call(refuse), name="outer")
    assert str(again.value) == told


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 8 bytes"), KeyboardInterrupt()])
def test_a_full_memory_and_an_interrupt_are_nobodys(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        call(fail)
    assert caught.value is error


def noise(corrupt, needs_images=False):
    return Noise("odd", corrupt, needs_images)(np.arange(12) % 3, 3, np.random.RandomState(0))


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda labels: None, r"None \(a forgotten return\?\)"),
        (lambda labels: labels.tolist(), "list"),
        (lambda labels: labels.astype(float), r"float64 of shape \(12,\)"),
        (lambda labels: labels[1:], r"int64 of shape \(11,\)"),
        (lambda labels: labels + 1, "labels from 1 to 3"),
        (lambda labels: labels - 1, "labels from -1 to 1"),
    ],
)
def test_what_is_no_noisy_labels_is_a_mistake_of_the_noise(wrong, found):
    wanted = r"it must return int64 labels of shape \(12,\) in 0\.\.2: report it to the plugin's author$"
    with pytest.raises(PluginError, match=rf"^noise 'odd': returned {found}; {wanted}"):
        noise(lambda labels, num_classes, rng: wrong(labels))


def test_noise_that_fails_is_named():
    with pytest.raises(
        PluginError, match=r"^noise 'odd': corrupt: ZeroDivisionError: .* \(test_blame\.py, line \d+\)$"
    ):
        noise(lambda labels, num_classes, rng: 1 // 0)
