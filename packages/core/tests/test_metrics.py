import attrs
import numpy as np
import pytest
import torch

from reweight_core.data.dataset import Split
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.sample_table import SampleTable
from reweight_core.testing import tiny_dataset
from reweight_core.training.metrics import noise_auroc, weight_figures

# clean weights 1, 0.8 and 0.2, corrupted 0.5 and 0; the last example was never visited
WEIGHTS = [0.5, 1.0, 0.0, 0.8, 0.2, 100.0]
CORRUPTED = [True, False, True, False, False, False]
VISITS = [1, 2, 1, 1, 3, 0]
AUROC = 5 / 6
"""Of the six pairs of a clean and a corrupted example only 0.2 and 0.5 are in the wrong order."""


def table_and_data(weights=WEIGHTS, corrupted=CORRUPTED, visits=VISITS):
    """Records and data of a few examples; `corrupted` is None where true labels are unknown."""
    size = len(weights)
    table = SampleTable(size, torch.device("cpu"))
    table.tensors["last_weight"].copy_(torch.tensor(weights))
    table.tensors["visits"].copy_(torch.tensor(visits))
    true = np.arange(size) % 4
    observed = true if corrupted is None else np.where(corrupted, (true + 1) % 4, true)
    dataset = tiny_dataset()
    data = PreparedData(
        dataset=dataset,
        train=Split(dataset.train.images[:size], observed),
        ids=np.arange(size),
        true_labels=np.full(size, -1) if corrupted is None else true,
        meta=None,
        meta_ids=np.empty(0, np.int64),
        val=None,
        test=None,
        fingerprint="by hand",
    )
    return table, data


def figures(*arguments, **changes):
    return weight_figures(*table_and_data(*arguments, **changes))


def test_the_figures_of_weights_made_by_hand_are_those_counted_by_hand():
    found = figures()
    assert found["noise_auroc"] == pytest.approx(AUROC)
    assert found["zero_weight_ratio"] == pytest.approx(1 / 5)
    assert found["mean_weight_clean"] == pytest.approx(2 / 3)
    assert found["mean_weight_corrupted"] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0, 1, 0.1, 2, 3, 0], 1),
        ([4, 1, 5, 2, 3, 0], 0),
        ([1, 1, 1, 1, 1, 0], 1 / 2),
        # of six pairs two are ties
        ([1, 1, 0, 1, 2, 0], (4 + 2 / 2) / 6),
    ],
)
def test_small_weights_of_wrong_labels_give_a_large_area(weights, expected):
    assert figures(weights)["noise_auroc"] == pytest.approx(expected)


def test_trusted_examples_have_no_weight_of_a_method_to_judge():
    table, data = table_and_data([0.5, 1.0, 0.0, 0.8, 0.2, 100.0], visits=[1] * 6)
    data = attrs.evolve(data, trusted=np.arange(6) == 5)
    # with the last one 100 would be a mean of right labels, and six of eight pairs in the right order
    assert weight_figures(table, data) == figures()


def test_the_area_is_that_of_the_weights_that_are_given_not_of_the_last_ones():
    table, data = table_and_data()
    other = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert noise_auroc(other, table, data) == 0


def test_without_true_labels_only_the_share_of_zeros_is_known():
    found = figures(corrupted=None)
    assert found["zero_weight_ratio"] == pytest.approx(1 / 5)
    assert [name for name, value in found.items() if value is not None] == ["zero_weight_ratio"]


def test_an_area_needs_examples_of_both_kinds_among_the_visited_and_finite_weights():
    assert figures(visits=[0, 2, 0, 1, 3, 0])["noise_auroc"] is None
    assert figures(visits=[0, 2, 0, 1, 3, 0])["mean_weight_corrupted"] is None
    assert figures([torch.nan, *WEIGHTS[1:]])["noise_auroc"] is None
    assert figures([*WEIGHTS[:-1], torch.nan])["noise_auroc"] == pytest.approx(AUROC)
