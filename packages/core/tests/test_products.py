import pytest
import torch

from reweight_core.machine.precision import products, set_products
from reweight_core.testing import tiny_trainer
from reweight_core.training import auto as comparison


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
