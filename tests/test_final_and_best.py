"""What a run keeps beside its last network: the best on the validation set, and what a plugin makes at the end."""

import copy
import json

import attrs
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
    return configure(**given | {"val_size": 50, "noise": "uniform:0.4", "checkpoint_every": 1} | more, out=out)


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
