import warnings

import attrs
import pytest

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.plugins.cross_entropy import plugin as CROSS_ENTROPY
from reweight_core.plugins.records import MethodPlugin


def warned(config, **record):
    """Return what is warned of for a method with such a record, called as the configuration calls it."""
    plugin = MethodPlugin(config.method, "does something", lambda config, context: object(), **record)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refuse_misfits(config, plugin, CROSS_ENTROPY, {}, has_meta_set=True)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"lookahead": "fd"}, "--lookahead fd"),
        ({"virtual_step": "optimizer"}, "--virtual-step optimizer"),
        ({"meta_every": 2}, "--meta-every 2"),
        (
            {"lookahead": "jvp", "virtual_step": "off", "meta_every": 3},
            "--lookahead jvp, --virtual-step off, --meta-every 3",
        ),
    ],
)
def test_options_of_the_look_ahead_are_warned_of_in_one_line_where_there_is_none(options, asked):
    (line,) = warned(RunConfig(method="plain", **options))
    assert line == f"{asked}: does nothing here, because method 'plain' does not look ahead"


@pytest.mark.parametrize("options", [{}, {"lookahead": "auto", "virtual_step": "plain", "meta_every": 1}])
def test_defaults_are_not_warned_of(options):
    assert warned(RunConfig(**options)) == []


def test_a_method_that_looks_ahead_uses_them():
    options = RunConfig(lookahead="fd", virtual_step="optimizer", meta_every=2)
    assert warned(options, looks_ahead="network", reuses_weights=True) == []
    with pytest.raises(UserError, match="--meta-every 2: method 'erm' has no rule"):
        warned(options, looks_ahead="network")
    with pytest.raises(UserError, match="--meta-every 2: method 'erm' has no rule"):
        warned(attrs.evolve(options, lookahead="head", virtual_step="plain"), looks_ahead="head")


def test_a_loss_that_is_defined_for_a_cosine_head_is_refused_with_a_linear_one():
    loss = attrs.evolve(CROSS_ENTROPY, name="angles", head="cosine")
    plugin = MethodPlugin("plain", "does nothing", lambda config, context: object())

    def refuse(head):
        refuse_misfits(RunConfig(loss="angles", head=head), plugin, loss, {}, has_meta_set=True)

    with pytest.raises(UserError, match="--head linear: loss 'angles' is defined for --head cosine"):
        refuse("linear")
    refuse("cosine")


def test_training_on_clean_examples_needs_some():
    plugin = MethodPlugin("plain", "does nothing", lambda config, context: object())
    with pytest.raises(UserError, match="--meta-use both: there are no clean examples to train on"):
        refuse_misfits(RunConfig(meta_use="both"), plugin, CROSS_ENTROPY, {}, has_meta_set=False)


def test_a_cosine_head_is_refused_where_a_linear_one_looks_ahead():
    with pytest.raises(UserError, match=r"--head cosine: method 'erm' looks ahead with a last linear layer"):
        warned(RunConfig(head="cosine"), looks_ahead="head")
    with pytest.raises(UserError, match=r"--lookahead head: .* give --head linear or another --lookahead"):
        warned(RunConfig(head="cosine", lookahead="head"), looks_ahead="network")
    assert warned(RunConfig(head="cosine"), looks_ahead="network") == []
