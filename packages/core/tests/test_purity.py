import json

import attrs
import numpy as np
import pytest
import torch

from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.testing import tiny_parts, train_in
from reweight_core.training.metrics import purity


def test_it_is_the_share_of_right_labels_in_each_set():
    # of the tiny data every fourth label is wrong
    data = tiny_parts("erm").data
    trusted = {"some": torch.tensor([0, 1, 2, 3, 5]), "wrong": torch.tensor([4, 8]), "nobody": torch.tensor([]).long()}

    assert purity(trusted, data) == {"some_purity": pytest.approx(0.8), "wrong_purity": 0}


def test_without_true_labels_there_is_no_figure():
    data = tiny_parts("erm").data
    unknown = attrs.evolve(data, true_labels=np.where(np.arange(len(data.true_labels)) == 7, -1, data.true_labels))

    assert purity({"some": torch.tensor([0, 1])}, unknown) == {}


def test_it_is_written_after_every_epoch_of_what_is_trusted_at_its_end(tmp_path, monkeypatch):
    class Trusting:
        """Trusts one more wrong label each epoch."""

        epoch = 0

        @hookimpl
        def finish_epoch(self, epoch):
            self.epoch = epoch

        @hookimpl
        def trusted_examples(self):
            return {"mine": torch.tensor([1, 2, *range(0, 4 * self.epoch, 4)])}

    monkeypatch.setattr(
        "reweight_core.plugins.erm.plugin", attrs.evolve(erm.plugin, build=lambda config, context: Trusting())
    )
    # the tiny data come from no plugin
    monkeypatch.setattr("reweight_core.plugins.registry.version_of", lambda kind, name: "tiny 1.0")
    run = train_in(tmp_path / "run", tiny_parts("erm", epochs=2))

    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["mine_purity"] for line in lines] == pytest.approx([2 / 3, 2 / 4])
