"""The records of the observers keep the contract of a plugin, and the docs name them with their options."""

import re
from pathlib import Path

from reweight_core.config.options import options_of
from reweight_core.config.resolve import owner_of
from reweight_core.testing import RecordSuite

ROW = r"^\| `(csv|tensorboard|trackio|wandb)` \| .* \| (.*) \|$"
OBSERVERS = ("csv", "tensorboard", "trackio", "wandb")


def test_the_docs_name_every_observer_with_its_options():
    page = (Path(__file__).parents[3] / "docs" / "runs.md").read_text(encoding="utf-8")
    rows = {name: set(re.findall(r"`(--[a-z-]+)", options)) for name, options in re.findall(ROW, page, re.M)}
    assert rows == {name: {item.flag for item in options_of(owner_of("observer", name))} for name in OBSERVERS}


class TestCSV(RecordSuite):
    kind, name = "observer", "csv"


class TestTensorBoard(RecordSuite):
    kind, name = "observer", "tensorboard"


class TestTrackio(RecordSuite):
    kind, name = "observer", "trackio"


class TestWandB(RecordSuite):
    kind, name = "observer", "wandb"
