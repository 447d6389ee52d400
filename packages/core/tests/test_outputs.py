"""What a network says of a set between steps, compared with a pass by hand; nothing else changes."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.images import ImageFiles
from reweight_core.engine.outputs import outputs_of
from reweight_core.models.build import HEADS, build_model
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.plugins import erm
from reweight_core.testing import tiny_parts
from reweight_core.testing.method_suite import run_steps

COUNT, SIZE = 23, 8


class Asking:
    """A method that keeps what it was given to ask with."""

    def __init__(self, config, context):
        self.context = context


def small_resnet(input_shape, num_classes):
    return CifarResNet(input_shape, num_classes, depth=8)


@pytest.fixture
def context(monkeypatch):
    """Return the context of a method after two steps, in which running statistics have moved."""

    def make(**options):
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", attrs.evolve(erm.plugin, build=Asking))
        parts = tiny_parts("erm", model=f"{__name__}:small_resnet", **options)
        run_steps(parts, 2)
        return parts.hooks.plugins["erm"].context

    return make


@pytest.fixture
def sets(tmp_path):
    """Return the same images as an array and as files, both to be augmented while training."""
    images = np.random.RandomState(0).randint(256, size=(COUNT, 3, SIZE, SIZE)).astype(np.uint8)
    names = np.array([f"{i}.png" for i in range(COUNT)], dtype=object)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / name)
    labels = np.arange(COUNT) % 4
    array, files = Split(images, labels), Split(ImageFiles(tmp_path, names, SIZE), labels)
    dataset = Dataset(
        train=array,
        test=None,
        classes=tuple("abcd"),
        mean=(100.0,) * 3,
        std=(50.0,) * 3,
        augment="crop-flip",
        padding=2,
    )
    inputs = (torch.from_numpy(images).float() - 100) / 50
    return [Examples(split, dataset, torch.device("cpu"), torch.float32) for split in (array, files)], inputs


def by_hand(model, inputs):
    """Run a small ResNet in eval mode, in batches of one; return its logits and what goes into its last layer."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        features = torch.cat([torch.relu(model.norm(model.conv(x[None]))) for x in inputs])
        features = torch.cat([model.blocks(z[None]).mean((2, 3)) for z in features])
        logits = model.linear(features)
    model.train(was_training)
    return logits, features


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_logits_and_features_are_those_of_a_pass_in_eval_mode(sets, streamed, head):
    torch.manual_seed(0)
    model = build_model(f"{__name__}:small_resnet", (3, SIZE, SIZE), 4, head)
    examples, inputs = sets
    model(inputs)
    found = outputs_of(model, examples[streamed], size=5, workers=0, heads=HEADS)
    logits, features = by_hand(model, inputs)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-5)
    assert not found.logits.requires_grad


def test_modes_statistics_and_random_draws_stay_as_they_are(context):
    context = context()
    model = context.model
    model.norm.eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    context.predict(context.train)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_method_asks_its_runs_network_or_another(context):
    context = context()
    other = build_model(f"{__name__}:small_resnet", (1, SIZE, SIZE), 4)
    examples = context.meta
    inputs = torch.cat([batch.inputs for batch in examples.in_order(3, 0)])
    for model, found in ((context.model, context.predict(examples)), (other, context.predict(examples, other))):
        torch.testing.assert_close(found.logits, by_hand(model, inputs)[0], rtol=1e-4, atol=1e-5)


def test_it_computes_in_the_runs_arithmetic_and_answers_in_single_precision(context):
    context = context(precision="bf16")
    found = context.predict(context.train)
    assert found.logits.dtype == found.features.dtype == torch.float32
    assert torch.equal(found.logits, found.logits.bfloat16().float())


def test_a_network_without_a_last_linear_layer_has_no_features(sets):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    found = outputs_of(Pooled(), sets[0][0], size=10, workers=0)
    assert found.features is None
    assert found.logits.shape == (COUNT, 4)


def test_one_example_is_enough(sets):
    (_, files), inputs = sets
    one = Split(files.stored[:1], np.zeros(1, np.int64))
    some = Split(files.stored[:2], np.arange(2))
    dataset = Dataset(train=some, test=None, classes=("a", "b"), mean=(100.0,) * 3, std=(50.0,) * 3)
    examples = Examples(one, dataset, torch.device("cpu"), torch.float32)
    model = small_resnet((3, SIZE, SIZE), 2)
    torch.testing.assert_close(
        outputs_of(model, examples, size=5, workers=0).logits, by_hand(model, inputs[:1])[0], rtol=1e-4, atol=1e-5
    )
