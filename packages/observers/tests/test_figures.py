"""What is logged of a run."""

from pathlib import Path

import numpy as np

from reweight_observers.figures import name_of, numbers_of, weights_of

SAMPLES = {
    "last_weight": np.array([0.5, 2.0, np.inf, 1.0, 4.0]),
    "visits": np.array([3, 1, 1, 0, 1]),
    "true": np.array([0, 1, 1, 1, 2]),
    "observed": np.array([0, 0, 1, 1, 2]),
}


def test_a_run_is_called_like_its_folder_and_one_of_a_sweep_like_its_setting():
    assert name_of(Path("somewhere/runs/gdw-digits-1")) == "gdw-digits-1"
    assert name_of(Path("here/comparison/gdw-digits/seed-3")) == "comparison/gdw-digits/seed-3"
    assert name_of(Path("here/my-seed-3")) == "my-seed-3"


def test_numbers_are_kept_and_nothing_else():
    metrics = {"epoch": 3, "stage": "train", "step": 30, "lr": 0.1, "val_accuracy": None, "stopped": True}
    assert numbers_of(metrics) == {"step": 30, "lr": 0.1}


def test_weights_are_those_of_examples_that_were_weighed_by_right_and_wrong_labels():
    found = {name: weights.tolist() for name, weights in weights_of(SAMPLES).items()}
    assert found == {"weights": [0.5, 2.0, 4.0], "weights_clean": [0.5, 4.0], "weights_corrupted": [2.0]}


def test_trusted_examples_have_no_weight_of_their_own():
    trusted = SAMPLES | {"trusted": np.array([False, True, False, False, False])}
    assert set(weights_of(trusted)) == {"weights", "weights_clean"}


def test_where_true_labels_are_unknown_there_is_one_histogram_and_before_the_first_visit_none():
    unknown = SAMPLES | {"true": np.full(5, -1)}
    assert list(weights_of(unknown)) == ["weights"]
    assert weights_of(SAMPLES | {"visits": np.zeros(5)}) == {}
