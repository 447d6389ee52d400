"""The cosine head: its formula, its derivatives, and what of a run goes with it."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reweight_core.engine.passes import Passes
from reweight_core.errors import UserError
from reweight_core.models.build import build_model
from reweight_core.models.cosine_head import CosineHead
from reweight_core.models.initial import initialise
from reweight_core.runs.predict import load
from reweight_core.testing import tiny_parts, train_in


def head(d=3, classes=2, seed=0):
    torch.manual_seed(seed)
    return CosineHead(d, classes).double()


def test_logits_are_thirty_cosines():
    layer = head()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0, 4], [0, 2, 0]]))
    logits = layer(torch.tensor([[1.0, 0, 0], [0, -5, 0], [10, 10, 0], [0, 0, 0]], dtype=torch.float64))
    expected = [[18, 0], [0, -30], [30 * 3 / 5 / 2**0.5, 30 / 2**0.5], [0, 0]]
    torch.testing.assert_close(logits, torch.tensor(expected, dtype=torch.float64))


def test_lengths_do_not_matter():
    layer, features = head(), torch.randn(5, 3, dtype=torch.float64)
    before = layer(features)
    with torch.no_grad():
        layer.weight.mul_(7)
    torch.testing.assert_close(layer(0.01 * features), before)


def test_class_weights_begin_with_length_one_in_every_direction():
    weight = head(d=8, classes=4000).weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert weight.mean(0).abs().max() < 0.03
    assert (weight.T @ weight / 4000 - torch.eye(8) / 8).abs().max() < 0.01


def test_its_derivatives_are_those_of_the_formula():
    layer = head()
    features = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def logits(features, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (features,))

    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(logits, (features, weight), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(logits, (features, weight))


def test_a_feature_of_zeros_has_finite_gradients():
    layer, features = head(), torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    layer(features).sum().backward()
    assert torch.isfinite(layer.weight.grad).all() and torch.isfinite(features.grad).all()


def test_a_look_ahead_goes_through_it():
    model = build_model("mlp", (1, 4, 4), 3, "cosine").double()
    passes = Passes(model, torch.Generator())
    passes.begin(torch.randn(5, 1, 4, 4, dtype=torch.float64))
    D = torch.randn(5, 3, dtype=torch.float64)
    logits = passes.forward().detach()
    v = {name: torch.randn_like(p) for name, p in passes.parameters.items()}
    Jv = passes.pushforward(v)
    difference = passes.difference(v, 1e-6)
    torch.testing.assert_close(Jv, difference, rtol=1e-4, atol=1e-5)
    pulled = passes.pullback(D)
    inner = sum((pulled[name] * v[name]).sum() for name in v)
    torch.testing.assert_close((D * Jv).sum(), inner)
    assert logits.abs().max() <= 30


def test_it_replaces_the_last_linear_layer_alone():
    linear, cosine = (build_model("lenet", (1, 8, 8), 5, kind) for kind in ("linear", "cosine"))
    *kept, last = cosine.children()
    *others, replaced = linear.children()
    assert [type(m) for m in kept] == [type(m) for m in others]
    assert isinstance(last, CosineHead)
    assert last.weight.shape == replaced.weight.shape
    assert cosine.training


def pooled(input_shape, num_classes):
    return nn.Sequential(nn.Conv2d(input_shape[0], num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_network_without_a_last_linear_layer_is_refused():
    with pytest.raises(UserError, match=r"--head cosine: model '.*:pooled' does not end in a linear layer"):
        build_model(f"{__name__}:pooled", (1, 4, 4), 3, "cosine")


def test_weights_of_a_linear_head_are_left_out():
    linear, cosine = build_model("mlp", (1, 4, 4), 3), build_model("mlp", (1, 4, 4), 3, "cosine")
    before = cosine[-1].weight.clone()
    assert not initialise(cosine, linear.state_dict(), "5", "--init-from x")
    assert torch.equal(cosine[1].weight, linear[1].weight)
    assert torch.equal(cosine[-1].weight, before)
    other = build_model("mlp", (1, 4, 4), 3, "cosine")
    assert initialise(other, cosine.state_dict(), "5", "--init-from x")
    assert torch.equal(other[-1].weight, before)


def test_a_run_begins_with_the_features_of_a_file_and_a_head_of_its_own(tmp_path):
    linear = build_model("mlp", (1, 8, 8), 4)
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    with pytest.warns(UserWarning, match="the last layer is another and begins untrained"):
        parts = tiny_parts("erm", model="mlp", head="cosine", init_from=tmp_path / "linear.safetensors")
    assert torch.equal(parts.model[1].weight, linear[1].weight)


def test_a_checkpoint_is_rebuilt_with_it(tmp_path, monkeypatch):
    # the tiny data come from no plugin
    monkeypatch.setattr("reweight_core.plugins.registry.version_of", lambda kind, name: "tiny 1.0")
    run = train_in(tmp_path / "run", tiny_parts("erm", model="mlp", head="cosine", epochs=1))
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert json.loads((checkpoint / "manifest.json").read_text())["manifest"]["head"] == "cosine"
    classifier = load(tmp_path / "run", "cpu")
    images = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(classifier(images), run.model((images.float() - 128) / 64))
