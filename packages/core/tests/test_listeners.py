"""Who listens to a run cannot change what others hear, and is told of its end whatever others do."""

import attrs
import numpy as np
import pluggy
import pytest

from reweight_core import UserError, hookimpl
from reweight_core.plugins.hookspecs import Hooks
from reweight_core.plugins.listeners import Listeners


def listeners(*plugins):
    manager = pluggy.PluginManager("reweight")
    manager.add_hookspecs(Hooks)
    for number, plugin in enumerate(plugins):
        manager.register(plugin, f"plugin {number}")
    return Listeners(manager)


@attrs.define
class Ends:
    """Without a hash, as attrs makes it."""

    number: int
    heard: list
    failure: Exception | None = None

    @hookimpl
    def end_run(self, error):
        self.heard.append(error)
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_all_hear_of_the_end_though_some_fail_and_the_failures_are_returned(error):
    heard = []
    first, second = ValueError("bad\nend"), UserError("observer 'x': no space")
    told = listeners(
        *(Ends(number, heard, failure) for number, failure in enumerate([None, first, second, None]))
    ).end_run(error)
    assert heard == [error] * 4
    # the last that was registered is called first, as in every hook
    assert told == ["observer 'x': no space", "plugin 1: end_run: ValueError: bad"]


def test_one_that_wraps_the_end_still_works():
    heard = []

    class Wraps:
        @hookimpl(wrapper=True)
        def end_run(self, error):
            result = yield
            heard.append("wrapped")
            return result

    assert listeners(Wraps(), Ends(1, heard)).end_run(None) == []
    assert heard == [None, "wrapped"]


def test_nothing_that_is_heard_can_be_changed(tmp_path):
    class Meddles:
        @hookimpl
        def begin_run(self, config):
            config["epochs"] = 7

        @hookimpl
        def observe_epoch(self, metrics, samples):
            if "train_loss" in metrics:
                metrics["train_loss"] = None
            elif samples["visits"][0]:
                samples["visits"][:] = 0
            else:
                samples["visits"] = None

        @hookimpl
        def finish_run(self, summary):
            summary["epochs"] = 7

    one = listeners(Meddles())
    with pytest.raises(TypeError):
        one.begin_run(tmp_path, {}, 0)
    with pytest.raises(TypeError):
        one.observe_epoch({"train_loss": 1.0}, dict)
    with pytest.raises(ValueError, match="read-only"):
        one.observe_epoch({}, lambda: {"visits": np.ones(2)})
    with pytest.raises(TypeError):
        one.observe_epoch({}, lambda: {"visits": np.zeros(2)})
    with pytest.raises(TypeError):
        one.finish_run({})


def test_samples_are_made_only_if_somebody_takes_them():
    seen = []

    class OfMetrics:
        @hookimpl
        def observe_epoch(self, metrics):
            seen.append(dict(metrics))

    class OfSamples:
        @hookimpl
        def observe_epoch(self, samples):
            seen.append(samples["visits"].tolist())

    listeners(OfMetrics()).observe_epoch({"epoch": 1}, lambda: pytest.fail("were made"))
    listeners(OfMetrics(), OfSamples()).observe_epoch({"epoch": 2}, lambda: {"visits": np.arange(2)})
    assert seen == [{"epoch": 1}, [0, 1], {"epoch": 2}]
