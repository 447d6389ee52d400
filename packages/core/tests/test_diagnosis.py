import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from reweight_core.testing import tiny_parts
from reweight_core.training.diagnosis import RULES, Diagnosis, Problem, Setting

LOG_10 = 2.302585


def setting(**changes):
    """Ten classes of a hundred training examples, two thousand steps, nothing else known."""
    usual = {"class_counts": [100] * 10, "val_counts": None, "wrong_labels": None, "batch_size": 100, "steps": 2000}
    return Setting(**usual | {"cross_entropy": True, "meta_size": 1000} | changes)


def history(stage="train", begin=0, **columns):
    """Epochs of 200 steps with these figures, one value an epoch; all in the second half of the run."""
    rows = zip(*columns.values(), strict=True)
    return [
        {"stage": stage, "epoch": begin + i, "step": 1000 + 200 * (begin + i)} | dict(zip(columns, row, strict=True))
        for i, row in enumerate(rows, start=1)
    ]


def diagnose(epochs, judged_by):
    """The problems of a run by name."""
    diagnosis = Diagnosis(judged_by)
    for metrics in epochs:
        diagnosis.add(metrics)
    return diagnosis.problems


def found(epochs, **changes):
    """Name of each problem and the epoch in which it was first seen."""
    return {name: problem.epoch for name, problem in diagnose(epochs, setting(**changes)).items()}


def test_a_healthy_run_has_no_problem():
    epochs = history(
        train_loss=[2.0, 1.5, 1.2, 1.1],
        train_accuracy=[0.3, 0.5, 0.6, 0.6],
        train_balanced_accuracy=[0.3, 0.5, 0.6, 0.6],
        top_class_ratio=[0.2, 0.15, 0.12, 0.11],
        meta_loss=[2.1, 0.9, 0.3, 0.1],
        effective_examples=[95, 60, 40, 30],
        zero_step_ratio=[0.0, 0.0, 0.1, 0.1],
        noise_auroc=[0.5, 0.7, 0.8, 0.9],
        mean_weight_clean=[1, 1.2, 1.4, 1.5],
        mean_weight_corrupted=[1, 0.8, 0.5, 0.2],
        val_accuracy=[0.4, 0.7, 0.8, 0.85],
    )
    assert found(epochs, val_counts=[10] * 10, wrong_labels=400) == {}
    assert diagnose([], setting()) == {}


class TestDiverged:
    @pytest.mark.parametrize(
        ("losses", "epoch"),
        [
            # 100 log C is 230.26
            ([2, 231, 231], 3),
            ([2, 231, 230, 231, 231], 5),
            ([2, 230, 230, 230], None),
            # one epoch may be a spike, and a loss that halves may come back
            ([2, 5000, 3, 5000, 3], None),
            ([5000, 2400, 1100, 500, 240, 100], None),
            ([2, 5000, 2501], 3),
            ([2, 5000, 2499, 1200, 900], 5),
            ([2, None, 5000, None], None),
        ],
    )
    def test_by_a_loss_out_of_all_proportion(self, losses, epoch):
        accuracy = [0.6] * len(losses)
        expected = {} if epoch is None else {"diverged": epoch}
        assert found(history(train_loss=losses, train_accuracy=accuracy)) == expected
        assert found(history(meta_loss=losses, train_loss=[2.0] * len(losses))) == expected

    @pytest.mark.parametrize(
        ("losses", "accuracies", "epoch"),
        [
            # 2 log C is 4.605, and 0.119 the limit of an accuracy that is chance
            ([2, 5, 5, 5], [0.3, 0.11, 0.11, 0.11], 4),
            ([2, 5, 5, 4.6, 5, 5, 5], [0.11] * 7, 7),
            ([2, 4.6, 4.6, 4.6, 4.6], [0.1] * 5, None),
            # a method that ignores wrong labels
            ([2, 5, 7, 9], [0.4, 0.4, 0.4, 0.4], None),
            ([2, 5, 7, 9], [0.1, 0.1, 0.12, 0.1], None),
            ([2, 40, 30, 19], [0.1] * 4, None),
        ],
    )
    def test_by_a_raised_loss_where_the_network_only_guesses(self, losses, accuracies, epoch):
        epochs = history(train_loss=losses, train_accuracy=accuracies, train_balanced_accuracy=accuracies)
        assert found(epochs, steps=10**6).get("diverged") == epoch

    def test_never_while_the_validation_examples_are_known(self):
        columns = {"train_loss": [2, 5, 5, 5], "train_balanced_accuracy": [0.1] * 4}
        guesses, knows = (history(**columns, val_accuracy=[value] * 4) for value in (0.1, 0.2))
        assert found(guesses, steps=10**6, val_counts=[100] * 10) == {"diverged": 4}
        assert found(knows, steps=10**6, val_counts=[100] * 10) == {}

    def test_never_by_the_test_set(self):
        columns = {"train_loss": [2, 5, 7, 9], "train_balanced_accuracy": [0.4] * 4}
        assert found(history(**columns, test_accuracy=[0.1] * 4)) == {}

    def test_not_in_the_first_steps(self):
        epochs = history(train_loss=[5, 5, 5, 5, 5, 5], train_balanced_accuracy=[0.1] * 6)
        for short, steps in ((0, [10, 20, 30, 40, 50, 60]), (5, [10, 60, 105, 109, 110, 130])):
            given = [epoch | {"step": step} for epoch, step in zip(epochs, steps, strict=True)]
            assert found(given, steps=10**6).get("diverged", 0) == short

    def test_another_loss_is_measured_by_its_first_epoch(self):
        columns = {"train_loss": [3, 5.9, 5.9, 5.9], "train_balanced_accuracy": [0.1] * 4}
        assert found(history(**columns), steps=10**6) == {"diverged": 4}
        assert found(history(**columns), steps=10**6, cross_entropy=False) == {}
        columns["train_loss"] = [3, 6.1, 6.1, 6.1]
        assert found(history(**columns), steps=10**6, cross_entropy=False) == {"diverged": 4}
        # one that is unbounded below, and began there
        columns["train_loss"] = [-50, -500, -400, -300]
        assert found(history(**columns), steps=10**6, cross_entropy=False) == {}

    def test_a_stage_begins_anew(self):
        first = history(train_loss=[2, 300.0])
        assert found(first + history("second", 2, train_loss=[300.0, 2])) == {}
        assert found(first + history("second", 2, train_loss=[300.0, 300.0])) == {"diverged": 4}
        assert found(first + history("train", 2, train_loss=[300.0, 2])) == {"diverged": 3}


class TestUnbounded:
    @pytest.mark.parametrize(
        ("losses", "epoch"),
        [
            ([2, -40, -231, -300, -400], 5),
            ([2, -40, -229, -300, -400, -500], 6),
            # it stands still, comes back, or was as large from the beginning
            ([2, -300, -301, -301, -301, -302], None),
            ([2, -300, -200, -400, -100], None),
            ([2, None, -300, -400, None], None),
            ([50, -300, -400, -500, -600], None),
            ([50, -5001, -6000, -7000], 4),
            # it was below zero from the beginning
            ([-50, -500, -700, -900, -1200], 4),
            ([-1000 * epoch for epoch in range(1, 101)], 3),
            ([-300 * epoch**2 for epoch in range(1, 101)], 3),
        ],
    )
    def test_by_a_loss_that_falls_on_far_below_zero(self, losses, epoch):
        expected = {} if epoch is None else {"unbounded": epoch}
        assert found(history(train_loss=losses), cross_entropy=False) == expected
        assert found(history(train_loss=[2.0] * len(losses), meta_loss=losses), cross_entropy=False) == expected

    def test_not_by_a_bounded_loss_below_zero(self):
        """ELR of two classes and lambda 7 goes from log 2 to 7 log(1 - 0.9999^2) at most."""
        share = 1 - np.exp(-np.arange(60) / 10)
        losses = np.log(2) + share * (7 * np.log(1 - 0.9999**2) - np.log(2))
        assert found(history(train_loss=losses.tolist()), class_counts=[100] * 2, cross_entropy=False) == {}


class TestChance:
    @pytest.mark.parametrize(
        ("accuracies", "epoch"),
        [
            ([0.118] * 4, 3),
            ([0.05, 0.118, 0.0, 0.118], 3),
            ([0.12] * 5, None),
            ([0.1, 0.1, 0.12, 0.1, 0.1, 0.1], 6),
            ([0.1, 0.1, None, 0.1, 0.1], None),
        ],
    )
    def test_on_the_training_examples(self, accuracies, epoch):
        epochs = history(train_balanced_accuracy=accuracies)
        assert found(epochs) == ({} if epoch is None else {"chance": epoch})
        # where accuracy is that of the test set alone, nothing is said
        assert found(history(test_accuracy=accuracies)) == {}

    def test_the_validation_examples_decide_where_there_are_some(self):
        epochs = history(train_balanced_accuracy=[0.1] * 4, val_accuracy=[0.2] * 4)
        assert found(epochs, val_counts=[100] * 10) == {}
        epochs = history(train_balanced_accuracy=[0.9] * 4, val_accuracy=[0.1] * 4)
        assert found(epochs, val_counts=[100] * 10) == {"chance": 3}

    def test_a_small_validation_set_is_no_excuse_for_more_than_a_twentieth(self):
        for accuracy, expected in ((0.1449, {"chance": 3}), (0.1451, {})):
            assert found(history(val_accuracy=[accuracy] * 4), val_counts=[1] * 10) == expected

    def test_guessing_the_most_frequent_class_of_an_unbalanced_validation_set_is_chance(self):
        for accuracy, expected in ((0.8, {"chance": 3}), (0.83, {})):
            assert found(history(val_accuracy=[accuracy] * 4), val_counts=[800, 200]) == expected

    def test_not_before_half_of_the_run(self):
        epochs = history(train_balanced_accuracy=[0.1] * 10)
        assert found(epochs, steps=4000) == {"chance": 5}
        assert found(epochs, steps=10**6) == {}

    @pytest.mark.parametrize("counts", [[100] * 10, [500, 60, 7], [300, 5], [40, 0, 30]])
    def test_random_answers_are_chance_and_good_ones_are_not(self, counts):
        rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts)
        present = [c for c, count in enumerate(counts) if count]
        limit = setting(class_counts=counts).train_chance
        guesses = [balanced_accuracy_score(labels, rng.choice(present, len(labels))) for _ in range(300)]
        # two standard deviations leave 2.3 % above them, and the limit may be lower where classes are small
        spread = np.std(guesses)
        assert limit <= 1 / len(present) + 2.2 * spread
        assert limit == pytest.approx(
            1 / len(present) + min(2 * spread, 0.05 * (1 - 1 / len(present))), abs=0.2 * spread
        )
        for c in present:
            assert balanced_accuracy_score(labels, np.full(len(labels), c)) <= limit


class TestOneClass:
    @pytest.mark.parametrize(
        ("shares", "epoch"), [([0.991] * 4, 3), ([0.99] * 5, None), ([1.0, 1, 0.5, 1, 1, 1], 6), ([1, 1], None)]
    )
    def test_nearly_all_predictions_name_it(self, shares, epoch):
        epochs = history(top_class_ratio=shares, train_balanced_accuracy=[0.3] * len(shares))
        assert found(epochs) == ({} if epoch is None else {"one class": epoch})
        assert found(epochs, steps=10**6) == {}

    def test_chance_is_told_of_a_run_that_comes_to_name_one_class(self):
        epochs = history(top_class_ratio=[0.3, 0.4, 1, 1, 1], train_balanced_accuracy=[0.1] * 5)
        assert found(epochs) == {"chance": 3, "one class": 5}

    def test_it_is_told_in_place_of_chance(self):
        assert found(history(top_class_ratio=[1.0] * 4, train_balanced_accuracy=[0.1] * 4)) == {"one class": 3}

    def test_where_nearly_all_labels_name_it_too_it_is_none(self):
        epochs = history(top_class_ratio=[1.0] * 4)
        assert found(epochs, class_counts=[89, 11]) == {"one class": 3}
        assert found(epochs, class_counts=[90, 10]) == {}


class TestFewExamples:
    @pytest.mark.parametrize(
        ("effective", "epoch"),
        [
            ([9, 9, 9, 9, 9], 3),
            ([50, 9, 9, 11, 9, 9, 9.9], 7),
            ([9, 9, 10, 9, 9], None),
            ([9, 9, None, 9], None),
        ],
    )
    def test_of_three_epochs_in_a_row(self, effective, epoch):
        assert found(history(effective_examples=effective)) == ({} if epoch is None else {"few examples": epoch})

    def test_the_message_says_how_few_of_how_many(self):
        problem = diagnose(history(effective_examples=[2.5] * 3), setting(batch_size=32))["few examples"]
        assert "of 3 epochs in a row rest on 2.5 of 32 examples" in problem.message
        assert "lower --lr" in problem.message


class TestZeroWeights:
    @pytest.mark.parametrize(
        ("shares", "epoch"), [([0.51] * 4, 3), ([0.5] * 4, None), ([1, 1, 0, 1, 1, 1.0], 6), ([1, 1], None)]
    )
    def test_of_most_steps(self, shares, epoch):
        expected = {} if epoch is None else {"zero weights": epoch}
        assert found(history(zero_step_ratio=shares)) == expected
        # such steps rest on no example; that is told once
        assert found(history(zero_step_ratio=shares, effective_examples=[20 * (1 - share) for share in shares])) in (
            expected,
            {"few examples": 3},
        )

    def test_they_are_told_in_place_of_few_examples(self):
        assert found(history(zero_step_ratio=[0.9] * 4, effective_examples=[2] * 4)) == {"zero weights": 3}


class TestInvertedWeights:
    @pytest.mark.parametrize(
        ("area", "wrong", "right", "epoch"),
        [
            (0.34, 1.6, 1.0, 3),
            (0.36, 1.6, 1.0, None),
            # in the wrong order, but nearly equal
            (0.01, 1.4, 1.0, None),
            (0.1, 0.2, 0.0, 3),
            (0.1, 0.2, -0.1, 3),
            (None, 1.6, 1.0, None),
        ],
    )
    def test_where_wrong_labels_weigh_more(self, area, wrong, right, epoch):
        columns = {"noise_auroc": area, "mean_weight_corrupted": wrong, "mean_weight_clean": right}
        epochs = history(**{name: [value] * 4 for name, value in columns.items()})
        assert found(epochs, wrong_labels=400) == ({} if epoch is None else {"inverted weights": epoch})
        assert found(epochs, wrong_labels=400, steps=10**6) == {}
        assert (
            found(epochs, wrong_labels=None) == found(epochs, wrong_labels=0) == found(epochs, wrong_labels=1000) == {}
        )

    def test_a_few_wrong_labels_may_weigh_more_by_chance(self):
        rng = np.random.default_rng(0)
        weights = rng.random((2000, 1000))
        # of ten wrong labels: the share of right ones that weigh less than each, by their ranks
        areas = 1 - (weights[:, :10, None] > weights[:, None, 10:]).mean((1, 2))
        epochs = [
            history(noise_auroc=[area] * 4, mean_weight_corrupted=[2.0] * 4, mean_weight_clean=[1.0] * 4)
            for area in areas
        ]
        told = [found(given, wrong_labels=10) != {} for given in epochs]
        assert (areas < 0.35).mean() > 0.03
        assert np.mean(told) < 0.003
        assert found(
            history(noise_auroc=[0.2] * 4, mean_weight_corrupted=[2.0] * 4, mean_weight_clean=[1.0] * 4),
            wrong_labels=10,
        )


class TestMetaSetByHeart:
    @pytest.mark.parametrize(
        ("loss", "accuracy", "epoch"),
        [
            # 0.05 log C is 0.115; a loss of 0.1 means at least 85.6 % right
            (0.1, 0.65, 3),
            (0.1, 0.66, None),
            (0.116, 0.1, None),
            (0.0, 0.79, 3),
            (0.0, 0.81, None),
            (-0.1, 0.3, None),
            (None, 0.3, None),
            (0.1, None, None),
        ],
    )
    def test_where_other_clean_examples_are_predicted_far_worse(self, loss, accuracy, epoch):
        epochs = history(meta_loss=[loss] * 4, val_accuracy=[accuracy] * 4)
        expected = {} if epoch is None else {"meta set by heart": epoch}
        assert {name: at for name, at in found(epochs, val_counts=[100] * 10).items() if name != "chance"} == expected
        assert "meta set by heart" not in found(epochs, val_counts=[100] * 10, meta_size=None)

    @pytest.mark.parametrize(("size", "told"), [(10, False), (20, False), (60, True)])
    def test_a_few_examples_may_be_right_by_chance(self, size, told):
        # 30 points more; of 20 examples the standard deviation is 10, of 60 it is 6
        epochs = history(meta_loss=[0.0] * 4, val_accuracy=[0.7] * 4)
        assert ("meta set by heart" in found(epochs, val_counts=[100] * 10, meta_size=size)) == told

    def test_a_mean_loss_bounds_the_accuracy_from_below(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            logits, labels = rng.normal(size=(50, 3)) * rng.exponential(5), rng.integers(0, 3, 50)
            logits[np.arange(50), labels] += rng.exponential(5)
            loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(50), labels]).mean()
            accuracy = (logits.argmax(1) == labels).mean()
            # what leaves no more than the gap is never told
            epochs = history(meta_loss=[loss] * 4, val_accuracy=[max(accuracy - 0.2, 0.0)] * 4)
            assert "meta set by heart" not in found(epochs, val_counts=[100, 100, 100], class_counts=[9, 9, 9])


def test_each_kind_is_told_once_as_it_was_first_seen():
    epochs = history(effective_examples=[9, 8, 7, 50, 9, 6, 5], train_loss=[2, 2, 300, 400, 500, 600, 700])
    problems = diagnose(epochs, setting())
    assert {name: problem.epoch for name, problem in problems.items()} == {"few examples": 3, "diverged": 4}
    for end in range(8):
        seen = diagnose(epochs[:end], setting())
        assert seen == {name: problem for name, problem in problems.items() if problem.epoch <= end}
    assert "7.0 of 100" in problems["few examples"].message
    assert "400 in the last" in problems["diverged"].message


def test_every_message_is_one_line_that_begins_with_the_name():
    problem = Problem("one class", 7, "all of them")
    assert str(problem) == "one class (epoch 7): all of them"
    assert all(name == name.lower() for name in RULES)


def test_the_setting_of_a_run_is_that_of_its_data():
    parts = tiny_parts("erm", model="mlp", epochs=3)
    given = Setting.of(parts)
    assert sum(given.class_counts) == len(parts.data.train) == 44
    assert given.class_counts == [int((parts.data.train.labels == c).sum()) for c in range(4)]
    assert given.wrong_labels == int((parts.data.train.labels != parts.data.true_labels).sum())
    assert (given.steps, given.batch_size, given.cross_entropy) == (15, 10, True)
    assert given.guessing == pytest.approx(np.log(4))
