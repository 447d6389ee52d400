"""What goes wrong in a loop of the user's own is told in one line, where it was given."""

import pytest
import torch
from torch import nn

from reweight_core import Reweighter, UserError
from reweight_core.errors import PluginError

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
