import pytest
import torch
from torch import nn

from reweight_core.data.examples import Examples
from reweight_core.runs.evaluate import judge
from reweight_core.runs.judgement import Judgement
from reweight_core.testing import tiny_dataset


@pytest.fixture
def examples():
    return Examples(tiny_dataset().train, tiny_dataset(), torch.device("cpu"), torch.float32, "crop-flip")


class Oracle(nn.Module):
    """Knows the label of every image but the first `wrong`; in train mode it knows nothing."""

    def __init__(self, examples, wrong):
        super().__init__()
        self.labels = examples.labels.clone()
        self.labels[:wrong] = (self.labels[:wrong] + 1) % 4
        self.seen = 0

    def forward(self, x):
        labels = self.labels[self.seen : self.seen + len(x)]
        self.seen += len(x)
        return nn.functional.one_hot(labels, 4) * (0.0 if self.training else 1.0)


@pytest.mark.parametrize(("wrong", "batch_size"), [(0, 500), (11, 7), (44, 1)])
def test_accuracy_is_the_share_of_right_predictions(examples, wrong, batch_size, monkeypatch):
    monkeypatch.setattr("reweight_core.runs.evaluate.BATCH_SIZE", batch_size)
    assert judge(Oracle(examples, wrong), examples).accuracy == (44 - wrong) / 44


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_tested_in_eval_mode_and_left_in_its_own(examples, training):
    model = Oracle(examples, 0).train(training)
    assert judge(model, examples).accuracy == 1
    assert model.training == training


def test_test_images_are_not_augmented(examples):
    seen = []

    class Recording(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 4)

    judge(Recording(), examples)
    assert torch.equal(seen[0], (examples.images.float() - 128) / 64)


@pytest.mark.parametrize("batch_size", [500, 7])
def test_classes_and_probabilities_are_those_of_the_largest_logits(examples, batch_size, monkeypatch):
    monkeypatch.setattr("reweight_core.runs.evaluate.BATCH_SIZE", batch_size)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    images = (examples.images.float() - 128) / 64
    confidence, predicted = model(images).double().softmax(1).max(1)
    expected = Judgement.of(4, examples.labels.numpy(), predicted.numpy(), confidence.detach().numpy())
    found = judge(model, examples)
    assert (found.confusion == expected.confusion).all()
    assert found.ece == pytest.approx(expected.ece)
