import pytest
import torch

from reweight_core.machine.precision import products, set_products
from reweight_core.testing import tiny_parts
from reweight_core.training import auto


def current():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def exactly():
    """Everything that is set, in the finest terms that this torch has."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32


@pytest.mark.parametrize("kind", ["ieee", "tf32"])
def test_products_are_set_for_matrices_and_for_layers(kind):
    with products("tf32" if kind == "ieee" else "ieee"):
        set_products(kind)
        assert current() == (kind == "tf32",) * 2
        # double backward through recurrent layers needs it
        with torch.backends.cudnn.flags(enabled=False):
            pass


def test_products_are_set_back_whatever_the_block_does():
    before = exactly()
    with pytest.raises(ValueError, match="inside"), products("tf32"):
        assert exactly() != before
        set_products("fp32")
        assert exactly() != before
        raise ValueError("inside")
    assert exactly() == before


@pytest.mark.parametrize(("rounding", "chosen"), [(1e-4, "tf32"), (0.3, "fp32")])
def test_rounded_products_are_chosen_where_the_weights_hardly_change(monkeypatch, rounding, chosen):
    parts = tiny_parts("erm", model="mlp", lookahead="jvp")
    torch.manual_seed(0)
    noise = torch.randn(10)
    kinds = []

    def tried(step, size, lookahead, *_):
        D_prime = torch.ones(size) + (rounding * noise if kinds[-1] == "tf32" else 0)
        return auto.Tried(torch.ones(size), D_prime, True)

    monkeypatch.setattr(auto, "set_products", kinds.append)
    monkeypatch.setattr(auto, "tried", tried)
    assert auto.choose_precision(parts.step, 10) == chosen
    assert kinds[-1] == chosen


def test_where_no_weights_depend_on_them_products_are_rounded(monkeypatch):
    kinds = []
    monkeypatch.setattr(auto, "set_products", kinds.append)
    parts = tiny_parts("erm", model="mlp")
    parts.step.feed(next(parts.feeder.epoch(0, "train", [10])))
    assert auto.choose_precision(parts.step, 10) == "tf32"
    assert kinds[-1] == "tf32"
