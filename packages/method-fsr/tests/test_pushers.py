from types import SimpleNamespace

import pytest
import torch

from reweight_method_fsr.pushers import PUSHERS, ForgettingEvents

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 1.0], [0.5, 0.2, 0.9]])
LABELS = torch.tensor([0, 2, 0])


def step(logits=LOGITS, labels=LABELS, ids=None):
    probabilities = logits.softmax(1)
    return SimpleNamespace(
        ids=torch.arange(len(labels)) if ids is None else ids,
        logits=logits,
        labels=labels,
        probabilities=probabilities,
        one_hot=torch.nn.functional.one_hot(labels, 3).float(),
        losses=-probabilities.log().gather(1, labels[:, None]).squeeze(1),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-margin", step().losses - torch.tensor([1.0, 2.0, 3.0])),
        ("negative-loss", -step().losses),
        ("area-under-margin", torch.tensor([2.0 - 1.0, 1.0 - 3.0, 0.5 - 0.9])),
        ("max-margin", step().probabilities.sort(1).values.diff(dim=1)[:, -1]),
    ],
)
def test_a_pusher_is_its_formula(name, expected):
    torch.testing.assert_close(PUSHERS[name](step(), torch.tensor([1.0, 2.0, 3.0])), expected)


def test_what_is_forgotten_or_never_recognised_is_not_trusted():
    context = SimpleNamespace(train_size=5, device=torch.device("cpu"), by_example=lambda tensor: tensor)
    pusher = ForgettingEvents(context)
    right, wrong = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]])
    ids, label = torch.tensor([3]), torch.tensor([0])
    # never recognised, recognised, still recognised, forgotten, still wrong, recognised again, forgotten
    history = [(wrong, -1), (right, 0), (right, 0), (wrong, -1), (wrong, 0), (right, 0), (wrong, -1)]
    for logits, expected in history:
        assert pusher(step(logits, label, ids), torch.zeros(1)).item() == expected
    assert pusher.ever_right.tolist() == [False, False, False, True, False]
