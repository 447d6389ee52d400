import pytest

from reweight_core import UserError
from reweight_experiments import run_sweep
from reweight_experiments.devices import slots_on, take_devices


@pytest.fixture
def _two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("given", [{}, {"device": None}, {"device": "auto"}, {"device": "cuda:1"}])
def test_one_device_is_left_to_the_runs(given):
    assert take_devices(given) == (given, [])
    assert slots_on([], 2) == [{}, {}]


@pytest.mark.parametrize("given", ["cuda:0,cuda:1", "cuda:0, cuda:1", ["cuda:0", "cuda:1"]])
def test_of_several_each_run_sees_one(_two_gpus, given):
    options, devices = take_devices({"device": given, "lr": 0.1})
    assert options == {"device": "cuda", "lr": 0.1}
    shown = [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_on(devices, 1)]
    assert shown == ["0", "1"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_on(devices, 5)] == ["0", "1", "0", "1", "0"]


def test_they_are_counted_among_those_that_this_process_sees(_two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8932f937")
    assert slots_on(["cuda:1", "cuda:0"], 2) == [
        {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cuda:0,cuda:2", "--device cuda:2: this machine has 2 CUDA devices"),
        ("cuda:0,cpu", "--device cuda:0,cpu: several must be GPUs, cuda:0,cuda:1 for example"),
        ("cuda:0,cuda:0", "--device cuda:0,cuda:0: 'cuda:0' comes twice"),
        ("cuda:0,", "--device cuda:0,: holds an empty name"),
    ],
)
def test_what_is_no_such_list_is_an_error_before_anything_is_made(_two_gpus, made, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        run_sweep("erm", tmp_path / "s", device=given)
    assert not made.names
    assert not (tmp_path / "s").exists()


def test_a_sweep_uses_all_of_them(_two_gpus, made, tmp_path):
    results = run_sweep("erm", tmp_path / "s", seeds=3, device="cuda:0,cuda:1")
    assert made.at_once == [2]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in made.environments] == ["0", "1", "0"]
    assert {run.run.config.device for run in results.cells[0].runs} == {"cuda"}
    # options that change no result may be others the next time
    run_sweep("erm", tmp_path / "s", seeds=4, device="cpu")
    assert made.names[3:] == ["erm-digits/seed-3"]
