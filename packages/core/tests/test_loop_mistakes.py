"""What goes wrong in a loop of the user's own is told in one line, where it was given."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from reweight_core import Reweighter, UserError, hookimpl
from reweight_core.data.given_batches import Expected, MetaBatches
from reweight_core.errors import PluginError
from reweight_core.plugins import registry
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.records import ComponentPlugin, LossPlugin

C, N = 4, 24


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, C))


def made(model=None, optimizer=None, method="erm", **settings):
    model = model or model_of()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer or torch.optim.SGD(trained, lr=0.1)
    return Reweighter(method, model, optimizer, **{"num_classes": C, "train_size": N} | settings)


def told(caught):
    assert not isinstance(caught.value, PluginError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "ids", "text"),
    [
        ([0, 1, 2], None, "ids of a batch must be whole numbers"),
        (None, range(3), "labels of a batch must be whole numbers"),
        (["a", "b", "c"], range(3), "labels of a batch must be whole numbers"),
        ([0, 1], range(2), "the batch has 3 inputs for 2 labels"),
    ],
)
def test_a_batch_whose_parts_do_not_fit_is_told(labels, ids, text):
    reweighter = made()
    with pytest.raises(UserError, match=text) as caught:
        reweighter(torch.zeros(3, 5), labels, ids)
    told(caught)
    assert reweighter.samples()["visits"].sum() == 0


CHANGES = {
    "freeze": lambda model: model[0].requires_grad_(False),
    "unfreeze": lambda model: model[2].bias.requires_grad_(True),
    "replace": lambda model: model.__setitem__(2, nn.Linear(7, C)),
}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_other_parameters_than_those_it_was_made_for_are_told(change, begun):
    model, batch = model_of(), (torch.zeros(3, 5), [0, 1, 2], range(3))
    model[2].bias.requires_grad_(False)
    reweighter = made(model)
    if begun:
        reweighter.step(*batch)
    CHANGES[change](model)
    with pytest.raises(UserError, match="are trained has changed: make the Reweighter anew") as caught:
        reweighter(*batch)
    told(caught)


class Clean:
    """Examples by position."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, position):
        return self.examples[position]


class Endless:
    """Has items, but no length."""

    def __getitem__(self, position):
        return X[0], 0


X, Y = torch.randn(10, 5, generator=torch.Generator().manual_seed(1)), torch.arange(10) % C


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ((X, Y[:9]), "meta= has 10 inputs for 9 labels"),
        ((X, Y + 1), "labels of meta= go from 1 to 4; num_classes=4"),
        ((X, Y.float()), "labels of meta= must be whole numbers"),
        ((X[:0], Y[:0]), "labels of meta= must be .* shape .0,."),
        ((["a"] * 10, Y), "meta=: the inputs of a pair or mapping must be tensors"),
        ((X, np.array(["a"] * 10)), "meta=: an array that cannot be a tensor"),
        ({"x": X, "mask": X}, "meta=: a batch or example must be .* a mapping with 'labels', but has x, mask"),
        (X, "meta=: a batch or example must be"),
        ([], "meta= is empty"),
        ([(X, Y[:9])], "meta= has 10 inputs for 9 labels"),
        ("clean.csv", "meta=: a batch or example must be"),
        (3, "meta= must be a loader, a dataset, or .* but is a int"),
        (Clean([]), "meta= is empty"),
        (Clean([(X[0], 7)]), "labels of meta= go from 7 to 7"),
        (Clean({1: (X[0], 0)}), "meta=: the first example cannot be had: KeyError: 0"),
        (Endless(), "meta=: the length of the dataset is not known"),
    ],
)
def test_what_cannot_be_clean_examples_is_told_when_it_is_made(meta, text):
    with pytest.raises(UserError, match=text) as caught:
        made(meta=meta)
    told(caught)


def test_clean_batches_that_fail_later_say_so_without_a_plugin_of_no_name():
    meta = iter([])
    source = MetaBatches(meta, Expected(C, None, torch.device("cpu"), "meta"), 4, torch.Generator())
    hooks = MethodHooks(object(), "x")
    with pytest.raises(UserError, match=r"^meta= gives no batch") as caught:
        hooks.provide_meta_set(source).draw_batch()
    told(caught)


@pytest.mark.parametrize("meta", [(X.numpy(), Y.numpy()), {"x": X, "labels": Y}, {"x": X.numpy(), "label": Y.numpy()}])
def test_arrays_and_mappings_are_drawn_from_as_tensors_are(meta):
    def drawn(meta):
        seeded = torch.Generator().manual_seed(0)
        source = MetaBatches(meta, Expected(C, None, torch.device("cpu"), "meta"), 4, seeded)
        batch = source.draw_batch()
        return batch.inputs["x"] if isinstance(batch.inputs, dict) else batch.inputs, batch.labels

    for mine, theirs in zip(drawn(meta), drawn((X, Y)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"optimizer": None}, "optimizer= must be a torch.optim.Optimizer, but is a NoneType"),
        ({"optimizer": "adam"}, "optimizer= must be a torch.optim.Optimizer, but is a str"),
        ({"optimizer": torch.optim.LBFGS([nn.Parameter(X)])}, "LBFGS computes the loss several times"),
        ({"model": "mlp"}, "model= must be a torch.nn.Module, but is a str"),
        ({"train_size": 0}, "train_size= must be a whole number from 1 on, but is 0"),
        ({"num_classes": 1}, "num_classes= must be a whole number from 2 on, but is 1"),
        ({"num_classes": 4.0}, "num_classes= must be a whole number from 2 on, but is 4.0"),
        ({"steps": 0}, "steps= must be a whole number from 1 on"),
        ({"epochs": 0}, "epochs= must be a whole number from 1 on"),
        ({"components": "ema"}, r"components= must be a list of names: components=\['ema'\]"),
        ({"new_model": nn.Parameter(X)}, "new_model= must be a function without arguments .* is a Parameter"),
        ({"meta_every": 0}, "^meta_every"),
    ],
)
def test_arguments_of_another_kind_are_told_by_their_names_in_python(change, text):
    model = model_of()
    settings = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "model": model, "num_classes": C}
    with pytest.raises(UserError, match=text) as caught:
        Reweighter("erm", **{"train_size": N} | settings | change)
    told(caught)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(("name", "given"), [("method", None), ("loss", nn.CrossEntropyLoss())])
def test_what_is_no_name_is_told(name, given):
    with pytest.raises(
        UserError, match=rf"^{name}= must be a name \(reweight list\), but is a {type(given).__name__}$"
    ):
        made(**{name: given})


def test_classes_that_are_missing_among_the_clean_examples_are_told(recwarn):
    made(meta=(X, Y))
    assert not recwarn
    for kept, text in ((Y != 2, "class 2: "), (Y == 1, "class 0 and of 2 more: ")):
        with pytest.warns(UserWarning, match=f"meta= has no example of {text}methods that learn"):
            made(meta=(X[kept], Y[kept]))


def test_a_batch_that_batchnorm_cannot_take_is_told():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, C))
    reweighter = made(model)
    for begun in (False, True):
        with pytest.raises(
            UserError, match=r"^BatchNorm cannot train on a batch of one example: .*drop_last=True"
        ) as caught:
            reweighter(X[:1], Y[:1], [0])
        told(caught)
        if not begun:
            reweighter.step(X[:3], Y[:3], range(3))


def test_a_model_in_eval_mode_is_told_once_an_epoch():
    reweighter = made(model_of().eval())
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"the model is in eval mode: call model.train\(\) before an epoch"):
            reweighter.step(X[:3], Y[:3], range(3))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reweighter.step(X[3:6], Y[3:6], range(3, 6))
        reweighter.epoch_ended()


def test_probabilities_in_place_of_logits_are_told(recwarn):
    made(nn.Sequential(model_of(), nn.LogSoftmax(1))).step(X[:3], Y[:3], range(3))
    assert not recwarn
    with pytest.warns(UserWarning, match="seems to return probabilities, .*: leave its softmax out"):
        made(nn.Sequential(model_of(), nn.Softmax(1))).step(X[:3], Y[:3], range(3))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([range(4), range(4), range(2)], "no other ids than 0 to 3, of 24 examples: ids are positions in the whole"),
        ([], "there was no batch since the last epoch"),
        ([range(4)], None),
        ([range(4), range(2, 6)], None),
        ([range(20, 24), range(4)], None),
    ],
)
def test_ids_that_are_counted_within_the_batch_and_epochs_of_nothing_are_told(ids, text, recwarn):
    reweighter = made()
    for batch in ids:
        reweighter.step(X[: len(batch)], Y[: len(batch)], batch)
    reweighter.epoch_ended()
    assert [text in str(w.message) for w in recwarn] == ([True] if text else [])


def test_a_reweighter_that_is_made_anew_takes_the_place_of_the_former(monkeypatch):
    followed = []

    class Following:
        @hookimpl
        def follow_update(self, parameters):
            followed.append(self)

    record = ComponentPlugin("following", "x", lambda config, context: Following())
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: record if name == "following" else find(kind, name))
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        reweighter = made(model, optimizer, components=["following"])
    reweighter.step(X[:3], Y[:3], range(3))
    assert len(followed) == 1
    made(model, optimizer).step(X[:3], Y[:3], range(3))
    assert len(followed) == 1


def test_lazy_layers_that_have_not_run_are_told():
    model = nn.Sequential(nn.LazyLinear(7), nn.Tanh(), nn.Linear(7, C))
    with pytest.raises(UserError, match="run it on one batch first, then make optimizer and Reweighter") as caught:
        made(model)
    told(caught)
    model(torch.zeros(3, 5))
    made(model).step(torch.zeros(3, 5), [0, 1, 2], range(3))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loss": "squared"}, "with loss='cross-entropy', and this one has loss='squared'"),
        ({"components": ["twice"]}, r"with components=\[\], and this one has components=\['twice'\]"),
        ({"train_size": N + 1}, "with train_size=24, and this one has train_size=25"),
        ({"num_classes": C + 1}, "with num_classes=4, and this one has num_classes=5"),
    ],
)
def test_a_state_of_another_reweighter_is_told_before_anything_is_restored(change, text, monkeypatch):
    find = registry.find
    others = {
        "squared": LossPlugin("squared", "x", lambda config, context: object()),
        "twice": ComponentPlugin("twice", "x", lambda config, context: object()),
    }
    monkeypatch.setattr(registry, "find", lambda kind, name: others.get(name) or find(kind, name))
    one, other = made(), made(**change)
    one.step(torch.zeros(3, 5), [0, 1, 2], range(3))
    with pytest.raises(UserError, match=text) as caught:
        other.load_state_dict(one.state_dict())
    told(caught)
    assert other.samples()["visits"].sum() == 0


def test_what_is_no_state_is_told():
    with pytest.raises(UserError, match="this is no state of a Reweighter"):
        made().load_state_dict(model_of().state_dict())
