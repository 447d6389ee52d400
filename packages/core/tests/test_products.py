import pytest
import torch

from reweight_core.machine.precision import products, set_products
from reweight_core.testing import tiny_trainer
from reweight_core.training import auto as comparison


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
        set_products("ieee")
        assert exactly() != before
        raise ValueError("inside")
    assert exactly() == before


@pytest.mark.parametrize(("rounding", "chosen"), [(1e-4, "tf32"), (0.3, "fp32")])
def test_rounded_products_are_chosen_where_the_weights_hardly_change(monkeypatch, rounding, chosen):
    trainer = tiny_trainer("erm", model="mlp", lookahead="jvp")
    torch.manual_seed(0)
    noise = torch.randn(10)
    kinds = []

    def weights(trainer, size, strategy):
        return torch.ones(size) + (rounding * noise if kinds[-1] == "tf32" else 0)

    monkeypatch.setattr(comparison, "set_products", kinds.append)
    monkeypatch.setattr(comparison, "weights_under", weights)
    assert comparison.choose_precision(trainer, 10) == chosen
    assert kinds[-1] == {"tf32": "tf32", "fp32": "ieee"}[chosen]


def test_where_no_weights_depend_on_them_products_are_rounded(monkeypatch):
    kinds = []
    monkeypatch.setattr(comparison, "set_products", kinds.append)
    trainer = tiny_trainer("erm", model="mlp")
    trainer.step.feed(next(trainer.feeder.epoch(0, "train", [10])))
    assert comparison.choose_precision(trainer, 10) == "tf32"
    assert kinds[-1] == "tf32"
