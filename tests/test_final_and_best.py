"""What a run keeps beside its last network: the best on the validation set, and what a plugin makes at the end."""

import copy
import json

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from reweight_core import UserError, configure
from reweight_core.cli.main import main
from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs.checkpoint import Final, load_latest
from reweight_core.runs.evaluate import evaluate
from reweight_core.runs.predict import load
from reweight_core.training.loop import train
from reweight_core.training.resume import resume


class Scaled(nn.Module):
    """Another structure: the network with its logits times a number."""

    def __init__(self, network):
        super().__init__()
        self.inner, self.scale = network, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.inner(x)


class Ends:
    """A method that ends with its network's logits negated: what was most likely becomes least likely."""

    structure = Scaled

    def __init__(self, config, context):
        self.calls = []

    @hookimpl
    def final_model(self, model):
        self.calls.append((model.training, len(list(model.parameters()))))
        final = type(self).structure(copy.deepcopy(model))
        with torch.no_grad():
            for parameter in final.parameters():
                if parameter.dim() == 0:
                    parameter.fill_(-1)
        return final


@pytest.fixture
def method(monkeypatch):
    """Put a method in place of erm."""

    def method(build, **record):
        built = []

        def keep(config, context):
            built.append(build(config, context))
            return built[-1]

        monkeypatch.setattr("reweight_core.plugins.erm.plugin", attrs.evolve(erm.plugin, build=keep, **record))
        return built

    return method


def digits(out, **more):
    given = {"method": "erm", "data": "digits", "model": "mlp", "batch_size": 200, "epochs": 2, "device": "cpu"}
    return configure(**given | {"val_size": 50, "noise": "uniform:0.4", "checkpoint_every": "1epochs"} | more, out=out)


class TestFinal:
    def test_it_is_what_is_kept_tested_and_predicted_with(self, method, tmp_path, capsys):
        built = method(Ends, final_network=Scaled)
        finished = train(digits(tmp_path / "run"))
        summary, saved = finished.summary, load_latest(tmp_path / "run" / "checkpoints")
        assert built[0].calls == [(False, len(list(finished.model.inner.parameters())))]
        # the last epoch stays the run's result; least likely classes are hardly ever right
        assert summary["final_test_accuracy"] < 0.1 < 0.3 < summary["test_accuracy"]
        assert summary["final_val_accuracy"] < 0.1
        assert saved.manifest.final == Final("method", "erm")
        assert saved.final["scale"] == -1
        network = load(tmp_path / "run").network
        assert isinstance(network, Scaled) and not network.training
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, finished.model.state_dict()[name])
        assert evaluate(tmp_path / "run")["test_accuracy"] == summary["final_test_accuracy"]
        main(["eval", str(tmp_path / "run")])
        assert "final network, of epoch 2, step" in capsys.readouterr().out

    @pytest.mark.parametrize("structure", [Scaled, lambda network: nn.Sequential(network)])
    def test_one_that_cannot_be_built_again_is_refused(self, method, tmp_path, monkeypatch, structure):
        monkeypatch.setattr(Ends, "structure", structure)
        method(Ends)
        with pytest.raises(UserError, match=r"^method 'erm': final_model returned a network that cannot .* its record"):
            train(digits(tmp_path / "run"))
        # what was trained is kept
        assert load_latest(tmp_path / "run" / "checkpoints").manifest.epoch == 2

    def test_one_of_the_same_structure_needs_no_record(self, method, tmp_path):
        class Zeroed(Ends):
            @hookimpl
            def final_model(self, model):
                final = copy.deepcopy(model)
                with torch.no_grad():
                    final[-1].weight.zero_()
                return final

        method(Zeroed)
        finished = train(digits(tmp_path / "run"))
        assert load(tmp_path / "run").network[-1].weight.eq(0).all()
        assert evaluate(tmp_path / "run")["test_accuracy"] == finished.summary["final_test_accuracy"]

    def test_a_forgotten_return_is_found(self, method, tmp_path):
        class Forgets(Ends):
            @hookimpl
            def final_model(self, model):
                pass

        method(Forgets)
        with pytest.raises(UserError, match=r"^method 'erm': final_model returned None \(a forgotten return"):
            train(digits(tmp_path / "run"))

    def test_an_interruption_while_it_is_made_costs_no_epoch(self, method, tmp_path):
        class Interrupted(Ends):
            @hookimpl
            def final_model(self, model):
                raise KeyboardInterrupt

        method(Interrupted, final_network=Scaled)
        with pytest.raises(KeyboardInterrupt):
            train(digits(tmp_path / "run"))
        method(Ends, final_network=Scaled)
        resumed = resume(tmp_path / "run")
        whole = train(digits(tmp_path / "whole"))
        assert resumed.summary["final_test_accuracy"] == whole.summary["final_test_accuracy"]
        assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 2

    def test_without_one_the_run_ends_with_its_network(self, tmp_path):
        finished = train(digits(tmp_path / "run"))
        saved = load_latest(tmp_path / "run" / "checkpoints")
        assert (saved.final, saved.manifest.final) == (None, None)
        assert "final_test_accuracy" not in finished.summary
        assert evaluate(tmp_path / "run")["test_accuracy"] == finished.summary["test_accuracy"]


class Spoils:
    """A method that lets its network become worse from the third epoch on."""

    def __init__(self, config, context):
        self._epoch = 0

    @hookimpl
    def generate_weights(self, step):
        return torch.ones_like(step.losses) * (1.0 if step.epoch < 2 else -1.0)


class TestBest:
    def test_it_is_said_kept_tested_and_predicted_with(self, method, tmp_path, capsys):
        method(Spoils)
        summary = train(digits(tmp_path / "run", epochs=4, lr=0.05)).summary
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        accuracies = [line["val_accuracy"] for line in lines]
        best = accuracies.index(max(accuracies))
        assert best < 3
        assert summary["best_epoch"] == best + 1
        assert summary["best_val_accuracy"] == max(accuracies) > summary["val_accuracy"]
        assert summary["best_test_accuracy"] == lines[best]["test_accuracy"]
        found = evaluate(tmp_path / "run", network="best")
        assert found["test_accuracy"] == lines[best]["test_accuracy"]
        assert (found["epoch"], found["step"]) == (best + 1, lines[best]["step"])
        main(["eval", str(tmp_path / "run"), "--network", "best"])
        assert f"best network, of epoch {best + 1}, step" in capsys.readouterr().out

    def test_a_run_with_patience_ends_with_it(self, method, tmp_path, capsys):
        method(Spoils)
        finished = train(digits(tmp_path / "run", epochs=9, patience=2))
        summary, saved = finished.summary, load_latest(tmp_path / "run" / "checkpoints")
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        best = summary["network_epoch"]
        assert (summary["network"], summary["stopped_epoch"], len(lines)) == ("best", best + 2, best + 2)
        for part in ("val", "test"):
            at_its_best = lines[best - 1][f"{part}_accuracy"]
            assert summary[f"{part}_accuracy"] == summary[f"best_{part}_accuracy"] == at_its_best
        # what follows from the last epochs alone does so here too
        assert summary["test_accuracy_mean5"] == pytest.approx(np.mean([line["test_accuracy"] for line in lines[-5:]]))
        found = evaluate(tmp_path / "run")
        assert found["test_accuracy"] == summary["test_accuracy"] > lines[-1]["test_accuracy"]
        assert (found["epoch"], found["step"]) == (best, lines[best - 1]["step"])
        for network in (finished.model, load(tmp_path / "run").network, load(tmp_path / "run", network="best").network):
            assert all(torch.equal(tensor, saved.best[name]) for name, tensor in network.state_dict().items())
        main(["eval", str(tmp_path / "run")])
        assert f"(final network, of epoch {best}, step" in capsys.readouterr().out

    def test_what_a_plugin_makes_at_the_end_of_a_run_with_patience_is_made_of_it(self, method, tmp_path):
        class SpoilsAndEnds(Spoils, Ends):
            def __init__(self, config, context):
                Spoils.__init__(self, config, context)
                Ends.__init__(self, config, context)

        method(SpoilsAndEnds, final_network=Scaled)
        summary = train(digits(tmp_path / "run", epochs=9, patience=1)).summary
        saved = load_latest(tmp_path / "run" / "checkpoints")
        assert all(torch.equal(tensor, saved.final[f"inner.{name}"]) for name, tensor in saved.best.items())
        assert evaluate(tmp_path / "run")["test_accuracy"] == summary["final_test_accuracy"] < summary["test_accuracy"]
        # its figures have files and columns of their own
        confusion = np.loadtxt(tmp_path / "run" / "final_test_confusion.csv", delimiter=",", skiprows=1)[:, 1:]
        assert confusion.trace() / confusion.sum() == summary["final_test_accuracy"]
        assert summary["final_test_classes"]["support"] == confusion.sum(axis=1).tolist()

    def test_without_a_validation_set_there_is_none(self, tmp_path):
        summary = train(digits(tmp_path / "run", val_size=0)).summary
        assert [summary[f"best_{name}"] for name in ("epoch", "val_accuracy", "test_accuracy")] == [None] * 3
        assert load_latest(tmp_path / "run" / "checkpoints").best is None
        with pytest.raises(UserError, match="--network best: there is none, because the run had no validation set"):
            load(tmp_path / "run", network="best")


def test_a_figure_called_like_one_of_cores_is_refused(method, tmp_path):
    class Figures:
        def __init__(self, config, context):
            pass

        @hookimpl
        def finish_epoch(self, epoch):
            return {"mine": 1.0, "test_accuracy": 1.0}

    method(Figures)
    with pytest.raises(
        UserError, match=r"^method 'erm': finish_epoch gives a figure 'test_accuracy', but there is one of this name"
    ):
        train(digits(tmp_path / "run"))


def test_a_fold_is_a_validation_set_like_any_other(tmp_path):
    options = {"data": "digits", "meta_size": 20, "val_fold": "1/4", "test_from": "none", "epochs": 1, "device": "cpu"}
    run = train(configure(**options, out=tmp_path / "run"))
    found = evaluate(run.folder)
    assert found["val_size"] == 5 and "test_size" not in found
    assert found["val_accuracy"] == run.summary["val_accuracy"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_validation_example_that_is_right_is_no_sign_of_chance(tmp_path):
    options = {"data": "digits", "meta_size": 10, "val_fold": "1/10", "epochs": 20, "lr": 0.1, "device": "cpu"}
    run = train(configure(**options, out=tmp_path / "run"))
    assert run.summary["val_accuracy"] == 1.0 and run.summary["health"] == []
