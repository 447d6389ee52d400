"""Stages: what they train on and begin with, in which order things happen, and what a resumed run does again."""

import copy
import json

import attrs
import numpy as np
import pytest
import torch

from reweight_core.errors import UserError
from reweight_core.machine.together import Together
from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs import folder as run_folder
from reweight_core.runs.checkpoint import load_latest
from reweight_core.testing import tiny, tiny_parts, train_in
from reweight_core.testing.in_turns import InTurns
from reweight_core.training.build import build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_to_the_end
from reweight_core.training.state import TrainingState

N, M, BATCH = 44, 8, 10


class Planned:
    """A method with the given stages, which notes what it hears."""

    def __init__(self, *stages, order=None):
        self._stages, self._order = stages, order
        self.heard, self.batches, self.model = [], [], None

    def build(self, config, context):
        self.model = context.model
        return self

    def network(self):
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    @hookimpl
    def plan_stages(self, stage):
        return [attrs.evolve(stage, **changes) for changes in self._stages]

    @hookimpl
    def begin_stage(self, stage):
        self.heard.append(("begin", stage.name, self.network()))

    @hookimpl
    def order_epoch(self, stage, epoch, size, rng):
        self.heard.append(("order", stage.name, epoch, size))
        return None if self._order is None else self._order(stage, epoch, size, rng)

    @hookimpl
    def transform_batch(self, batch):
        # the ids that were fed keep their address
        self.batches.append(attrs.evolve(batch, ids=batch.ids.clone()))
        return batch

    @hookimpl
    def finish_epoch(self, epoch):
        self.heard.append(("finish", epoch, self.network()))

    @hookimpl
    def observe_epoch(self, metrics):
        self.heard.append(("observe", metrics["epoch"], metrics["stage"]))

    def ids(self):
        return [batch.ids.tolist() for batch in self.batches]


@pytest.fixture
def parts_of(monkeypatch):
    """Build parts of a method object in place of erm, with a validation set of the test images if asked."""

    def with_val(config, data, observers, together):
        return build_parts(config, attrs.evolve(data, val=data.test), observers, together=together)

    def parts_of(method, observers=(), val=False, **options):
        record = attrs.evolve(erm.plugin, build=method.build)
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
        monkeypatch.setattr(run_folder, "write_config", lambda *_: None)
        monkeypatch.setattr(tiny, "build_parts", with_val if val else build_parts)
        return tiny_parts("erm", observers, **{"model": "mlp", "augment": "none", **options})

    return parts_of


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_network(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


class TestLength:
    def test_a_stage_in_steps_has_a_shorter_last_epoch_and_its_schedule_is_fitted_to_the_fraction(
        self, parts_of, tmp_path
    ):
        method = Planned({"name": "a", "steps": 7, "lr": 0.1}, {"name": "b", "epochs": 1, "lr": 0.05})
        train_in(tmp_path / "run", parts_of(method, schedule="step", lr_drops="1"))
        lines = metrics_of(tmp_path / "run")
        # an epoch has 5 steps
        assert [(line["stage"], line["step"]) for line in lines] == [("a", 5), ("a", 7), ("b", 12)]
        assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.01, 0.05])
        assert [len(ids) for ids in method.ids()] == [10, 10, 10, 10, 4, 10, 10, 10, 10, 10, 10, 4]

    def test_a_stage_in_steps_falls_by_its_steps_also_where_plugins_order_short_epochs(self, parts_of, tmp_path):
        def two_steps(stage, epoch, size, rng):
            return np.arange(20)

        train_in(tmp_path / "run", parts_of(Planned({"steps": 10, "lr": 0.1}, order=two_steps), schedule="cosine"))
        lines = metrics_of(tmp_path / "run")
        # the usual epoch has 5 steps, so the stage has two of them, and the cosine is that of whole ones
        assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
        assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.05])

    def test_the_cosine_of_a_stage_in_steps_ends_where_the_stage_does(self, parts_of, tmp_path):
        train_in(tmp_path / "run", parts_of(Planned({"steps": 12, "lr": 0.1})))
        rates = [line["lr"] for line in metrics_of(tmp_path / "run")]
        assert rates == pytest.approx([0.05 * (1 + np.cos(np.pi * epoch / 2.4)) for epoch in range(3)])

    def test_a_schedule_of_its_own_is_asked_within_epochs_too(self, parts_of, tmp_path):
        asked = []

        def schedule(done):
            asked.append(done)
            return 2.0**-done

        train_in(tmp_path / "run", parts_of(Planned({"epochs": 2, "lr": 0.1, "schedule": schedule})))
        assert asked[-10:] == pytest.approx([k / 5 for k in range(10)])
        assert [line["lr"] for line in metrics_of(tmp_path / "run")] == pytest.approx([0.1 / 2**0.8, 0.1 / 2**1.8])

    def test_the_expected_number_of_steps_is_told_and_corrected(self, parts_of, tmp_path):
        told = []

        class Told(Planned):
            @hookimpl
            def observe_step(self, done, total):
                told.append((done, total))

        def order(stage, epoch, size, rng):
            return np.arange(20) if epoch == 1 else None

        train_in(tmp_path / "run", parts_of(Told({"epochs": 3}, {"steps": 4}, order=order)))
        # 5 steps, then 2, then 5, then 4; before the second epoch all are expected to be alike
        assert [total for _, total in told] == [19] * 5 + [5 + 2 + 2 + 4] * 2 + [16] * 9
        assert told[-1] == (16, 16)


class TestSource:
    def test_the_two_sets_together_are_gone_through_once_and_the_trusted_ones_marked(self, parts_of, tmp_path):
        method = Planned({"epochs": 1, "source": "both"})
        parts = parts_of(method)
        train_in(tmp_path / "run", parts)
        ids = torch.cat([batch.ids for batch in method.batches])
        assert sorted(ids.tolist()) == list(range(N + M))
        assert [len(batch.ids) for batch in method.batches] == [10] * 5 + [2]
        for batch in method.batches:
            assert batch.source == "both"
            assert torch.equal(batch.trusted, batch.ids >= N)
            for k, i in enumerate(batch.ids.tolist()):
                own = parts.train.batch(torch.tensor([i]), None) if i < N else None
                expected = own or parts.meta.batch(torch.tensor([i - N]), None)
                assert torch.equal(batch.inputs[k], expected.inputs[0])
                assert batch.labels[k] == expected.labels[0]
        assert sum(batch.trusted.sum() for batch in method.batches) == M

    def test_records_of_the_training_set_are_those_of_its_examples(self, parts_of, tmp_path):
        parts = parts_of(Planned({"epochs": 2, "source": "both"}))
        train_in(tmp_path / "run", parts)
        assert parts.step.samples.tensors["visits"].tolist() == [2] * N
        assert len(parts.step.samples.mean("weight")) == N

    @pytest.mark.parametrize("source", ["train", "meta"])
    def test_a_batch_says_where_it_is_from(self, parts_of, tmp_path, source):
        method = Planned({"epochs": 1, "source": source})
        train_in(tmp_path / "run", parts_of(method))
        assert {batch.source for batch in method.batches} == {source}
        assert all(batch.trusted is None for batch in method.batches)
        assert all((batch.ids < (N if source == "train" else M)).all() for batch in method.batches)

    def test_some_positions_alone(self, parts_of, tmp_path):
        ids = np.array([3, 40, 7, 9, 11, 20, 21, 22, 23, 24, 30, 31])
        method = Planned({"epochs": 2, "ids": ids})
        train_in(tmp_path / "run", parts_of(method))
        assert [len(part) for part in method.ids()] == [10, 2] * 2
        first, second = ([*one, *other] for one, other in (method.ids()[:2], method.ids()[2:]))
        assert sorted(first) == sorted(second) == sorted(ids.tolist())
        assert first != second


class TestOrder:
    def test_what_is_fed_is_what_a_plugin_orders(self, parts_of, tmp_path):
        drawn = []

        def order(stage, epoch, size, rng):
            drawn.append(rng.randint(size, size=[44, 3, 21][epoch]))
            return drawn[-1]

        method = Planned({"epochs": 3}, order=order)
        parts = parts_of(method, schedule="constant")
        train_in(tmp_path / "run", parts)
        cut = [part.tolist() for ids in drawn for part in np.split(ids, range(BATCH, len(ids), BATCH)) if len(part) > 1]
        assert method.ids() == cut
        counts = np.bincount(np.concatenate([*map(np.array, cut)]), minlength=N)
        assert parts.step.samples.tensors["visits"].tolist() == counts.tolist()
        assert [line["step"] for line in metrics_of(tmp_path / "run")] == [5, 6, 8]

    def test_the_draws_follow_from_seed_and_epoch(self, parts_of, tmp_path):
        def draws(seed):
            drawn = []

            def order(stage, epoch, size, rng):
                drawn.append(rng.randint(2**31))

            parts_of(method := Planned({"epochs": 2}, order=order), seed=seed)
            train_in(tmp_path / f"{len(list(tmp_path.iterdir()))}", parts_of(method, seed=seed))
            return drawn

        first, again, other = draws(0), draws(0), draws(1)
        assert first == again
        assert len({*first, *other}) == 4

    def test_a_stage_on_the_meta_set_is_not_asked(self, parts_of, tmp_path):
        method = Planned({"name": "a", "epochs": 1, "source": "meta"}, {"name": "b", "epochs": 1, "source": "both"})
        train_in(tmp_path / "run", parts_of(method))
        assert [heard for heard in method.heard if heard[0] == "order"] == [("order", "b", 1, N + M)]

    @pytest.mark.parametrize(
        ("order", "problem"),
        [
            ([1, 2], "list, not a numpy array"),
            (np.array([1.0, 2.0]), r"an array of float64, shape \(2,\); it must be int64"),
            (np.array([[1, 2]]), r"an array of int64, shape \(1, 2\); it must be int64 \(k,\)"),
            (np.array([1]), "1 positions; a batch needs at least 2"),
            (np.array([0, N]), "positions from 0 to 44; they must be in 0..43"),
            (np.array([0, -1]), "positions from -1 to 0; they must be in 0..43"),
        ],
    )
    def test_what_is_no_order_is_refused_by_the_plugins_name(self, parts_of, tmp_path, order, problem):
        parts = parts_of(Planned({}, order=lambda *_: order))
        with pytest.raises(UserError, match=f"^method 'erm': order_epoch returned {problem}"):
            train_in(tmp_path / "run", parts)

    def test_an_order_beyond_the_stages_own_positions_is_refused(self, parts_of, tmp_path):
        parts = parts_of(Planned({"name": "few", "ids": np.arange(5)}, order=lambda *_: np.array([4, 5])))
        with pytest.raises(UserError, match="positions that stage 'few' does not go through"):
            train_in(tmp_path / "run", parts)


class TestSeveralProcesses:
    def test_what_an_epoch_leaves_out_is_told_in_one_line(self, parts_of):
        # 44 examples are four batches of ten and four more, fewer than two for each of four
        plan = Planned({"name": "a"}, {"name": "b", "ids": np.arange(12)})
        with pytest.warns(UserWarning) as warned:
            parts = parts_of(plan, together=Together(1, 4), meta_batch_size=8)
        (told,) = [str(one.message) for one in warned if "leaves out" in str(one.message)]
        assert told.startswith("--processes 4: each epoch leaves out 4 of 44 examples, others every time")
        assert [sum(sizes) for sizes in parts.batch_sizes] == [40, 10]

    @pytest.mark.parametrize(("batch_size", "processes"), [(10, 2), (11, 4), (43, 2), (10, 1)])
    def test_nothing_is_told_where_nothing_or_one_is_left_out_as_by_one_process(
        self, parts_of, batch_size, processes, recwarn
    ):
        parts_of(Planned({"name": "a"}), together=Together(0, processes), batch_size=batch_size, meta_batch_size=8)
        assert not [one for one in recwarn if "leaves out" in str(one.message)]

    def test_an_epoch_without_a_batch_is_refused(self, parts_of):
        with pytest.raises(UserError, match="stage 'a' has 7 examples in an epoch, and each process needs two"):
            parts_of(Planned({"name": "a", "ids": np.arange(7)}), together=Together(0, 4), meta_batch_size=8)
        plan = Planned({"name": "a"}, order=lambda stage, epoch, size, rng: np.arange(7))
        with pytest.raises(UserError, match="stage 'a' has 7 examples in an epoch, and each process needs two"):
            InTurns(4).run(
                lambda together: TrainingState(parts_of(plan, together=together, meta_batch_size=8)).next_epoch()
            )


class TestStart:
    def test_a_boundary_comes_after_the_last_epoch_was_evaluated_and_kept(self, parts_of, tmp_path):
        method = Planned({"name": "a", "epochs": 1}, {"name": "b", "epochs": 1, "start": "initial"})
        saved = []

        class Watch:
            @hookimpl
            def begin_stage(self, stage):
                saved.append((stage.name, (tmp_path / "run" / "checkpoints").exists()))

        parts = parts_of(method, [Watch()])
        initial = method.network()
        train_in(tmp_path / "run", parts)
        kinds = [heard[:2] for heard in method.heard]
        assert kinds == [
            ("begin", "a"),
            ("order", "a"),
            ("finish", 1),
            ("observe", 1),
            ("begin", "b"),
            ("order", "b"),
            ("finish", 2),
            ("observe", 2),
        ]
        assert saved == [("a", False), ("b", True)]
        assert_same_network(method.heard[4][2], initial)
        assert any(not torch.equal(tensor, initial[name]) for name, tensor in method.heard[2][2].items())

    @pytest.mark.parametrize("fresh", [True, False])
    def test_the_initial_network_again_is_the_first_epoch_again_but_for_the_optimizer(self, parts_of, tmp_path, fresh):
        method = Planned(
            {"epochs": 1, "schedule": lambda done: 1.0},
            {"epochs": 1, "schedule": lambda done: 1.0, "start": "initial", "fresh_optimizer": fresh},
            order=lambda stage, epoch, size, rng: np.arange(size),
        )
        train_in(tmp_path / "run", parts_of(method, model="resnet20"))
        first, second = (heard[2] for heard in method.heard if heard[0] == "finish")
        assert fresh == all(torch.equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize("fresh", [True, False])
    def test_going_on_with_a_fresh_optimizer_is_a_new_run_from_the_old_ones_weights(self, parts_of, tmp_path, fresh):
        def order(stage, epoch, size, rng):
            return np.arange(size)

        chained = Planned({"epochs": 2}, {"epochs": 1, "lr": 0.01, "fresh_optimizer": fresh}, order=order)
        train_in(tmp_path / "chained", parts_of(chained))
        first = Planned({"epochs": 2}, order=order)
        run = train_in(tmp_path / "first", parts_of(first)).folder
        weights = next(run.glob("checkpoints/*/model.safetensors"))
        second = Planned({"epochs": 1, "lr": 0.01}, order=order)
        train_in(tmp_path / "second", parts_of(second, init_from=weights))
        found, expected = chained.network(), second.network()
        assert fresh == all(torch.equal(found[name], expected[name]) for name in found)

    def test_the_best_network_is_that_of_the_best_epoch_on_the_validation_set(self, parts_of, tmp_path):
        # from the third epoch on the loss goes up
        method = Planned(
            {"epochs": 4, "schedule": lambda done: 1.0 if done < 2 else -1.0},
            {"epochs": 1, "lr": 0.0, "start": "best"},
        )
        train_in(tmp_path / "run", parts_of(method, val=True, momentum=0.0, lr=0.03))
        accuracies = [line["val_accuracy"] for line in metrics_of(tmp_path / "run")]
        best = int(np.argmax(accuracies[:4]))
        assert best < 3 and accuracies[best] > accuracies[3]
        after = [heard[2] for heard in method.heard if heard[0] == "finish"]
        begun = [heard[2] for heard in method.heard if heard[0] == "begin"]
        assert_same_network(begun[1], after[best])
        assert_same_network(load_latest(tmp_path / "run" / "checkpoints").best, after[best])

    def test_what_is_evaluated_is_what_is_best(self, parts_of, tmp_path):
        class Doubled(Planned):
            @hookimpl
            def evaluation_model(self, model):
                doubled = copy.deepcopy(model)
                with torch.no_grad():
                    for parameter in doubled.parameters():
                        parameter.mul_(2)
                return doubled

        method = Doubled({"epochs": 1})
        parts = parts_of(method, val=True)
        assert parts.best.copy() is None
        train_in(tmp_path / "run", parts)
        trained = method.network()
        for name, parameter in parts.best.copy().named_parameters():
            assert torch.equal(parameter, 2 * trained[name])


STAGES = (
    {"name": "a", "epochs": 3, "lr": 0.1},
    {"name": "b", "steps": 8, "lr": 0.05, "source": "both", "start": "initial"},
    {"name": "c", "epochs": 2, "lr": 0.02, "start": "best", "fresh_optimizer": True, "ids": np.arange(3, 30)},
    {"name": "d", "epochs": 2, "lr": 0.01, "source": "meta"},
)


class Interrupt:
    """Interrupts a run after an epoch or a step, before its checkpoint."""

    def __init__(self, epoch=None, step=None):
        self._epoch, self._step = epoch, step

    @hookimpl
    def observe_step(self, done, total):
        if done == self._step:
            raise KeyboardInterrupt

    @hookimpl
    def observe_epoch(self, metrics):
        if metrics["epoch"] == self._epoch:
            raise KeyboardInterrupt


class TestResume:
    @pytest.mark.parametrize("epoch", range(2, 10))
    def test_a_resumed_run_is_the_uninterrupted_one(self, parts_of, tmp_path, epoch):
        resumed, state = self.interrupted_and_resumed(parts_of, tmp_path, "1epochs", epoch=epoch)
        # what came after the checkpoint is done again
        assert state["epochs_done"] == epoch - 1
        begun = [heard[1] for heard in resumed.heard if heard[0] == "begin"]
        first_epochs = {"b": 4, "c": 6, "d": 8}
        assert begun == [name for name, first in first_epochs.items() if first >= epoch]

    @pytest.mark.parametrize("step", range(2, 30))
    def test_so_is_one_that_was_interrupted_within_an_epoch(self, parts_of, tmp_path, step):
        _, state = self.interrupted_and_resumed(parts_of, tmp_path, "1steps", step=step)
        assert state["steps_done"] == step - 1

    def interrupted_and_resumed(self, parts_of, tmp_path, every, **interrupt):
        """Compare the two; return the method of the resumed run, and where it was resumed."""

        def order(stage, epoch, size, rng):
            return rng.randint(size, size=size) if stage.name == "a" else None

        def parts(*observers):
            method = Planned(*STAGES, order=order)
            options = {"checkpoint_every": every, "optimizer": "adam", "augment": "crop"}
            return method, parts_of(method, observers, val=True, **options)

        _, whole = parts()
        train_in(tmp_path / "whole", whole)
        expected = TrainingState(whole).state_dict()

        _, interrupted = parts(Interrupt(**interrupt))
        with pytest.raises(KeyboardInterrupt):
            train_in(tmp_path / "run", interrupted)
        resumed, again = parts()
        state = TrainingState(again)
        state.restore(load_latest(tmp_path / "run" / "checkpoints"))
        where = {"epochs_done": state.epochs_done, "steps_done": state.steps_done}
        train_to_the_end(state, HeldOut.of(again.config, again.data, again.device), tmp_path / "run", "")
        found = TrainingState(again).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert_same_network(again.best.weights, whole.best.weights)
        return resumed, where


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"epochs": 0}, "has 0 epochs; it must be a whole number above 0"),
            ({"epochs": 1.5}, "has 1.5 epochs"),
            ({"steps": 0}, "has 0 steps"),
            ({"lr": -0.1}, "has the rate -0.1"),
            ({"lr": float("nan")}, "has the rate nan"),
            ({"schedule": "cosine"}, "has the schedule 'cosine'"),
            ({"start": "fresh"}, "has the start 'fresh'; it must be continue or initial or best"),
            ({"start": "best"}, "begins with the best network before there is one"),
            ({"ids": np.arange(3), "source": "both"}, "has ids, which are positions in the training set"),
            ({"ids": [1, 2]}, "has ids that are no int64 array"),
            ({"ids": np.array([1])}, "has ids that are no int64 array"),
            ({"ids": np.array([0, N])}, "has ids from 0 to 44"),
        ],
    )
    def test_mistakes_of_a_plan(self, parts_of, changes, problem):
        with pytest.raises(UserError, match=f"^method 'erm': planned stage 'x', which {problem}"):
            parts_of(Planned({"name": "x", **changes}))

    @pytest.mark.parametrize("source", ["meta", "both"])
    def test_a_stage_on_clean_examples_needs_some(self, parts_of, source):
        parts = parts_of(Planned({"name": "x", "source": source}))
        with pytest.raises(UserError, match="stage 'x' trains on clean examples, and there are none: give --meta-size"):
            build_parts(parts.config, attrs.evolve(parts.data, meta=None))

    def test_a_start_from_the_best_needs_a_validation_set(self, parts_of):
        with pytest.raises(UserError, match=r"stage 'y' begins with the network that was best .*: give --val-size N"):
            parts_of(Planned({}, {"name": "y", "start": "best"}))
