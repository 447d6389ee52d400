"""Every method and component in a loop of the user's own, against the trainer."""

import copy
import warnings

import pytest
import torch
from torch import nn

from reweight_core import Reweighter, UserError, registry
from reweight_core.errors import PluginError
from reweight_core.models.build import build_model
from reweight_core.testing import tiny_parts

EPOCHS, RATES = 4, (0.0625, 0.125, 0.03125)
STAGED = {"clean-only", "glc", "posterior-label", "pencil", "fine-tune", "forward", "backward"}
ORDERED = {"crust", "resample"}
OPTIONS = {
    "fsr": {"dictionary_size": 8, "probe_size": 4, "warmup_epochs": 1},
    "weighted": {"rate": 0.4},
    "gce": {"gce_truncate": 0.3},
    "relabel": {"relabel_warmup_epochs": 1},
}


def names(kind):
    return sorted(set(registry.names(kind)) - STAGED - ORDERED)


class Following:
    """A loader that gives the meta batches of the trainer's steps."""

    def __init__(self, examples):
        self.examples, self.ids = examples, None

    def __iter__(self):
        while True:
            batch = self.examples.batch(self.ids, None)
            yield batch.inputs, batch.labels


class Positions:
    """The examples of a run by position, as a user's dataset gives them."""

    def __init__(self, examples):
        batch = examples.batch(torch.arange(len(examples)), None)
        self.inputs, self.labels = batch.inputs, batch.labels

    def __getitem__(self, i):
        return self.inputs[i], self.labels[i]


def loop_of(parts, model, **options):
    config = parts.config
    batches = Positions(parts.train)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )
    meta = Following(parts.meta) if hasattr(parts.meta, "labels") else None
    reweighter = Reweighter(
        config.method,
        model,
        optimizer,
        num_classes=4,
        train_size=len(parts.train),
        meta=meta,
        labels=parts.train.labels,
        dataset=batches,
        epochs=EPOCHS,
        steps=20,
        loss=config.loss,
        components=config.with_,
        new_model=lambda: build_model("mlp", (1, 8, 8), 4),
        seed=config.seed,
        **options,
    )
    # what plugins draw at the beginning follows the network's own draws in a run
    reweighter.load_state_dict(reweighter.state_dict() | {"plugins": parts.hooks.state_dict()})
    return reweighter, optimizer, batches, meta


def fed_of(parts):
    return [fed for epoch in range(EPOCHS) for fed in parts.feeder.epoch(epoch, "train", parts.batch_sizes[0])]


def same_steps(parts, reweighter, optimizer, data, meta):
    parts.model.train()
    parts.hooks.begin_stage(parts.stages[0])
    feds, losses = fed_of(parts), []
    for number, fed in enumerate(feds):
        epoch, rate = number // len(parts.batch_sizes[0]), RATES[number % 3]
        parts.step.lr.fill_(rate)
        optimizer.param_groups[0]["lr"] = rate
        if meta is not None:
            meta.ids = fed.meta_ids
        parts.step.feed(fed)
        parts.step.run(len(fed.ids), parts.stages[0], epoch=epoch)
        with torch.autocast("cpu", torch.bfloat16, enabled=parts.config.precision == "bf16"):
            loss = reweighter(data.inputs[fed.ids], data.labels[fed.ids], fed.ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (number + 1) % len(parts.batch_sizes[0]) == 0:
            parts.hooks.finish_epoch(epoch + 1, parts.step.samples.tensors)
            reweighter.epoch_ended()
    return losses


CASES = [{"method": name} for name in names("method")]
CASES += [{"method": "erm", "loss": name} for name in names("loss") if name != "cross-entropy"]
CASES += [{"method": "erm", "with": [name]} for name in names("component")]
CASES += [{"method": name, "precision": "bf16"} for name in ("erm", "l2rw", "gdw", "fsr", "co-teaching")]
CASES += [{"method": "gdw", "loss": "gce", "with": ["ema"]}, {"method": "l2rw", "with": ["mixup", "ema"]}]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("chosen", CASES, ids=lambda chosen: "-".join(str(part) for part in chosen.values()))
def test_a_loop_of_ones_own_trains_the_same_network_bit_for_bit(chosen):
    method = chosen["method"]
    plugins = [method, chosen.get("loss"), *chosen.get("with", ())]
    options = {name: value for plugin in plugins for name, value in OPTIONS.get(plugin, {}).items()}
    looks = registry.find("method", method).looks_ahead
    if looks == "network":
        options["lookahead"] = "jvp"
    if chosen.get("loss") == "ldam":
        chosen = chosen | {"head": "cosine"}
    parts = tiny_parts(model="mlp", epochs=EPOCHS, augment="none", **chosen, **options)
    model = copy.deepcopy(parts.model).train()
    reweighter, *given = loop_of(parts, model, **options)
    losses = same_steps(parts, reweighter, *given)
    assert len(losses) == 20
    for (name, mine), theirs in zip(model.named_parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(mine, theirs), (name, (mine - theirs).abs().max())
    found, expected = reweighter.samples(), parts.step.samples
    assert torch.equal(found["last_weight"], expected.tensors["last_weight"])
    assert torch.equal(found["mean_loss"], expected.mean("loss"))
    assert torch.equal(found["predicted"], expected.tensors["predicted"])
    for mine, theirs in zip(
        reweighter.evaluation_model().parameters(), parts.hooks.evaluation_model(parts.model).parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_the_average_of_a_wrapped_network_is_that_of_the_network():
    found = []
    for wrap in (lambda model: model, torch.compile):
        torch.manual_seed(0)
        model = nn.Linear(3, 4)
        wrapped = wrap(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.5)
        reweighter = Reweighter("erm", wrapped, optimizer, num_classes=4, train_size=8, components=["ema"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(3):
                reweighter.step(torch.randn(8, 3), torch.arange(8) % 4, range(8))
        averaged = reweighter.evaluation_model()
        assert not torch.equal(averaged.weight, model.weight)
        found.append(averaged.weight)
    assert torch.equal(*found)


def test_a_method_that_wants_the_clean_examples_themselves_says_so():
    model, data = nn.Linear(3, 4), (torch.randn(8, 3), torch.arange(8) % 4)
    with pytest.raises(UserError, match=r"fsr.*asks for the clean examples themselves .*use reweight train"):
        Reweighter(
            "fsr", model, torch.optim.SGD(model.parameters(), lr=0.1), num_classes=4, train_size=8, meta=data,
            dataset=list(zip(*data, strict=True)), epochs=99, reward="given",
        )  # fmt: skip


@pytest.mark.parametrize("knows", [(), ("labels", "meta"), ("dataset", "meta", "epochs", "steps")])
@pytest.mark.parametrize("name", sorted(STAGED | ORDERED))
def test_what_needs_a_run_is_refused_in_one_line(name, knows):
    kind = next(kind for kind in ("method", "loss", "component") if name in registry.names(kind))
    chosen = {"method": {"method": name}, "loss": {"loss": name}, "component": {"components": [name]}}[kind]
    model = nn.Linear(3, 4)
    data = (torch.randn(8, 3), torch.arange(8) % 4)
    known = {"labels": data[1], "meta": data, "dataset": list(zip(*data, strict=True)), "epochs": 3, "steps": 9}
    with pytest.raises(UserError, match=r"of its own, .*: use reweight train") as caught:
        Reweighter(
            chosen.pop("method", "erm"), model, torch.optim.SGD(model.parameters(), lr=0.1),
            num_classes=4, train_size=8, **{argument: known[argument] for argument in knows}, **chosen,
        )  # fmt: skip
    assert not isinstance(caught.value, PluginError)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


class Recurrent(nn.Module):
    """Its dropout draws from the global generator, out of reach."""

    def __init__(self):
        super().__init__()
        self.body, self.linear = nn.LSTM(3, 5, 2, batch_first=True, dropout=0.5), nn.Linear(5, 4)

    def forward(self, x):
        return self.linear(self.body(x[:, None])[0][:, -1])


def test_dropout_of_recurrent_layers_is_refused_only_where_a_method_looks_ahead():
    data = torch.randn(8, 3), torch.arange(8) % 4
    for method, refused in (("erm", False), ("co-teaching", False), ("gdw", True)):
        model = Recurrent()
        reweighter = Reweighter(
            method, model, torch.optim.SGD(model.parameters(), lr=0.1), num_classes=4, train_size=8, meta=data,
            epochs=1, new_model=Recurrent,
        )  # fmt: skip
        if refused:
            with pytest.raises(UserError, match=r"dropout inside .* recurrent layers.*: set that dropout to 0"):
                reweighter(*data, range(8))
        else:
            assert torch.isfinite(reweighter.step(*data, range(8)))


@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X[:, :2], y),
        lambda X, y: (X.double(), y),
        lambda X, y: [(X.double(), y)],
        lambda X, y: (X[:1], y[:1]),
    ],
    ids=["width", "type", "type of a list", "one"],
)
def test_clean_examples_that_the_model_cannot_take_are_told_as_such(change):
    data = torch.randn(8, 3), torch.arange(8) % 4
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reweighter = Reweighter(
            "l2rw", model, torch.optim.SGD(model.parameters(), lr=0.1), num_classes=4, train_size=8, meta=change(*data)
        )
    with pytest.raises(
        UserError, match=r"^meta=: (the model takes the training examples, but not|BatchNorm)"
    ) as caught:
        reweighter(*data, range(8))
    assert "\n" not in str(caught.value)
