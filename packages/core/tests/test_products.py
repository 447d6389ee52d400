import pytest
import torch

from reweight_core.machine.precision import products, set_products
from reweight_core.testing import tiny_parts
from reweight_core.training import auto


def current():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def exact():
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision


def test_products_are_set_back_whatever_the_block_does():
    before = exact()
    with pytest.raises(ValueError, match="inside"), products("tf32"):
        assert current() == (True, True)
        assert set(exact()) == {"tf32"}
        set_products("ieee")
        assert current() == (False, False)
        assert "tf32" not in exact()
        # double backward through recurrent layers needs it
        with torch.backends.cudnn.flags(enabled=False):
            pass
        raise ValueError("inside")
    assert exact() == before


@pytest.mark.parametrize(("rounding", "chosen"), [(1e-4, "tf32"), (0.3, "fp32")])
def test_rounded_products_are_chosen_where_the_weights_hardly_change(monkeypatch, rounding, chosen):
    parts = tiny_parts("erm", model="mlp", lookahead="jvp")
    torch.manual_seed(0)
    noise = torch.randn(10)
    kinds = []

    def tried(step, size, strategy):
        D_prime = torch.ones(size) + (rounding * noise if kinds[-1] == "tf32" else 0)
        return auto.Tried(torch.ones(size), D_prime, True)

    monkeypatch.setattr(auto, "set_products", kinds.append)
    monkeypatch.setattr(auto, "tried", tried)
    assert auto.choose_precision(parts.step, 10) == chosen
    assert kinds[-1] == {"tf32": "tf32", "fp32": "ieee"}[chosen]


def test_where_no_weights_depend_on_them_products_are_rounded(monkeypatch):
    kinds = []
    monkeypatch.setattr(auto, "set_products", kinds.append)
    parts = tiny_parts("erm", model="mlp")
    parts.step.feed(next(parts.feeder.epoch(0, "train", [10])))
    assert auto.choose_precision(parts.step, 10) == "tf32"
    assert kinds[-1] == "tf32"
