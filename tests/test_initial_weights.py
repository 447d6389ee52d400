import pytest
import torch
import torchvision
from safetensors.torch import save_file

from reweight_core import UserError, configure, train
from reweight_core.config.load_data import load_data
from reweight_core.models.build import build_model
from reweight_core.models.initial import initialise, pretrained_weights
from reweight_core.training.build import build_parts


def parts(**options):
    config = configure(**{"data": "digits", "model": "mlp", "meta_size": 0, "device": "cpu", **options})
    return build_parts(config, load_data(config))


def test_a_run_begins_with_the_weights_of_a_checkpoint(tmp_path):
    run = train(configure(data="digits", meta_size=0, steps=3, out=tmp_path / "run"))
    (newest,) = (run.folder / "checkpoints").glob("step-*")
    begun = parts(init_from=newest / "model.safetensors", seed=5)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(begun.model.state_dict()[name], tensor)


def test_a_last_layer_for_other_classes_begins_untrained(tmp_path):
    torch.manual_seed(1)
    other = build_model("mlp", (1, 8, 8), 7)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.warns(UserWarning, match="last layer is another and begins untrained"):
        begun = parts(init_from=tmp_path / "other.safetensors")
    untouched = parts()
    names = list(begun.model.state_dict())
    for name in names[:-2]:
        assert torch.equal(begun.model.state_dict()[name], other.state_dict()[name])
    for name in names[-2:]:
        assert torch.equal(begun.model.state_dict()[name], untouched.model.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("1.weight"), "has no '1.weight', which the model needs"),
        (lambda state: state.update(extra=torch.zeros(1)), "has 'extra', which the model does not"),
        (lambda state: state.update({"1.bias": torch.zeros(3)}), r"'1.bias' has shape \(3,\), the model's \(256,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    model = build_model("mlp", (1, 8, 8), 10)
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(UserError, match=f"FILE: .*{message}"):
        initialise(model, state, "5", "FILE")


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"pickle?")
    for path in (tmp_path / "weights", tmp_path / "missing"):
        with pytest.raises(UserError, match="cannot be read as a safetensors file"):
            parts(init_from=path)


def test_both_at_once_are_refused(tmp_path):
    with pytest.raises(UserError, match="exclude each other"):
        parts(init_from=tmp_path / "x", pretrained=True)


def test_torchvisions_weights_are_checked_and_hold_tensors_only(monkeypatch):
    asked = {}

    def fetch(url, **options):
        asked.update(options, url=url)
        return torchvision.models.get_model("squeezenet1_1", weights=None).state_dict() | {"aux1.x": torch.zeros(1)}

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    state = pretrained_weights("squeezenet1_1")
    assert asked["check_hash"] and asked["weights_only"] and "squeezenet1_1" in asked["url"]
    assert "aux1.x" not in state and len(state) > 10


def test_pretrained_weights_exist_for_torchvisions_models_only():
    with pytest.raises(UserError, match="'mlp' is not a model of torchvision"):
        parts(pretrained=True)


def test_a_download_that_fails_names_the_way_out(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"--pretrained: cannot fetch .* give --init-from"):
        pretrained_weights("resnet18")
