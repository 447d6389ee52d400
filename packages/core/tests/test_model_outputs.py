from collections import namedtuple

import pytest
import torch
from torch import nn

from reweight_core.models import build

Output = namedtuple("Output", ["loss", "logits"])
FORMS = {
    "a field": lambda x: Output(None, x),
    "a mapping": lambda x: {"features": x * 2, "logits": x},
    "torchvision's name": lambda x: {"out": x, "aux": x * 2},
    "the first of several": lambda x: (x, x * 2),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_of_a_network_that_returns_more_the_logits_are_used(form, monkeypatch):
    class Net(nn.Linear):
        def forward(self, x):
            return form(super().forward(x.flatten(1)))

    monkeypatch.setattr(build, "_find", lambda name: lambda shape, classes: Net(12, classes))
    model = build.build_model("net", (3, 2, 2), 4)
    x = torch.randn(5, 3, 2, 2)
    assert torch.equal(model(x), nn.functional.linear(x.flatten(1), model.weight, model.bias))
    assert set(model.state_dict()) == {"weight", "bias"}
