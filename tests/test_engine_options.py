"""The engine's options through the methods that use them."""

import json
import sys

import attrs
import pytest
import torch

from reweight_core.cli.main import main
from reweight_core.engine.cuda_graphs import RecordingError
from reweight_core.errors import UserError
from reweight_core.measure import bench
from reweight_core.testing import tiny_parts
from reweight_core.testing.method_suite import feed, run_steps
from reweight_core.testing.recorder import CpuBackend

TINY = bench.Setting(
    model="resnet20", shape=(3, 8, 8), batch_size=8, meta_batch_size=4, device="cpu", options={"probe_size": 6}
)


@pytest.mark.parametrize("method", ["mwnet", "gdw"])
def test_between_look_aheads_the_weighting_network_decides_and_stays(method):
    parts = tiny_parts(method)
    run_steps(parts, 2)
    before = {name: tensor.clone() for name, tensor in parts.hooks.plugins[method].state_dict().items()}
    feed(parts, 3)
    parts.model.train()
    step = parts.step.open(10, looks_ahead=False)
    weights = parts.hooks.generate_weights(step)
    v = parts.hooks.plugins[method].V(step.losses).detach()
    if method == "gdw":
        others = step.one_hot == 0
        torch.testing.assert_close(weights[others], v[:, None].expand_as(weights)[others])
    else:
        torch.testing.assert_close(weights, v)
    assert step.look is None
    assert all(torch.equal(before[name], tensor) for name, tensor in parts.hooks.plugins[method].state_dict().items())


@pytest.mark.parametrize("method", ["l2rw", "fsr"])
def test_methods_without_a_rule_for_other_steps_refuse(method):
    with pytest.raises(UserError, match=f"--meta-every 2: method '{method}'"):
        tiny_parts(method, meta_every=2)


def test_a_method_that_never_looks_ahead_is_not_kept_from_a_sweep_of_look_aheads():
    with pytest.warns(UserWarning, match="--lookahead fd, --meta-every 2: does nothing here, because method 'erm'"):
        run_steps(tiny_parts("erm", lookahead="fd", meta_every=2), 2)


def test_clipping_is_refused_in_the_virtual_step_and_done_in_the_real_one():
    with pytest.raises(UserError, match="--virtual-step optimizer cannot follow --max-grad-norm"):
        tiny_parts("mwnet", virtual_step="optimizer", max_grad_norm=1.0)
    parts = tiny_parts("mwnet", max_grad_norm=1e-3, momentum=0.0, weight_decay=0.0)
    before = [p.detach().clone() for p in parts.model.parameters()]
    run_steps(parts, 1)
    moved = torch.cat([(p - b).flatten() for p, b in zip(parts.model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_adam_in_the_virtual_step_is_warned_of():
    with pytest.warns(UserWarning, match="gradient's sign"):
        tiny_parts("gdw", virtual_step="optimizer", optimizer="adam")


@pytest.mark.parametrize(
    ("method", "strategy", "m", "floor"),
    [
        ("erm", None, 8, 3),
        ("l2rw", "jvp", 8, 8),
        ("l2rw", "fd", 8, 7),
        ("l2rw", "head", 8, 4),
        ("l2rw", "fd", 2, 4 + 0.75),
        ("mwnet", "jvp", 8, 10),
        ("gdw", "jvp", 4, 7 + 1.5),
        ("gdw", "fd", 8, 9),
        ("mwnet", "head", 4, 3.5),
        ("fsr", None, 8, 3 + (8 + 6) / 8),
    ],
)
def test_a_step_makes_no_pass_beyond_its_arithmetic_floor(method, strategy, m, floor):
    """In units of a forward pass, r = m/n: L2RW 5+3r, 4+3r; MW-Net and GDW 7+3r, 6+3r; the head 3+r; FSR 4+q/n."""
    setting = attrs.evolve(TINY, meta_batch_size=m)
    assert 3 * bench.floor(bench.parts_of(setting, bench.Subject(method, strategy))) == pytest.approx(floor)


@pytest.mark.parametrize(("method", "floor"), [("l2rw", 9), ("gdw", 12)])
def test_lean_memory_costs_one_more_forward_pass(method, floor):
    setting = attrs.evolve(TINY, meta_batch_size=8, memory="lean")
    assert 3 * bench.floor(bench.parts_of(setting, bench.Subject(method, "jvp"))) == pytest.approx(floor)


def test_the_benchmark_describes_every_subject(capsys):
    main(
        [
            "bench",
            "--methods",
            "erm,l2rw",
            "--strategies",
            "fd,head",
            "--model",
            "mlp",
            "--image",
            "3x64x64",
            "--batch-size",
            "8",
            "--meta-batch-size",
            "4",
            "--device",
            "cpu",
            "--repetitions",
            "3",
            "--json",
        ]
    )
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["strategy"]) for row in rows] == [
        ("plain", None),
        ("erm", None),
        ("l2rw", "fd"),
        ("l2rw", "head"),
    ]
    for row in rows:
        assert row["seconds_per_step"] > 0
        assert (row["batch_size"], row["meta_batch_size"]) == (8, 4)
        if sys.platform == "linux":
            # the momentum of the first layer alone, which the first step makes
            assert row["peak_bytes"] > 4 * 3 * 64 * 64 * 256
        else:
            assert row["peak_bytes"] is None
    assert rows[0]["ratio_to_plain"] == rows[1]["ratio_to_erm"] == 1
    assert [row["floor"] for row in rows] == pytest.approx([1, 1, (4 + 1.5) / 3, 3.5 / 3])


class CountingBackend(CpuBackend):
    """Stands for CUDA graphs; counts what it does."""

    def __init__(self, done):
        self.done = done

    def run(self, take):
        self.done.append("run")
        super().run(take)

    def record(self, take):
        self.done.append("record")
        replay = super().record(take)
        return lambda: self.done.append("replay") or replay()


def test_a_plain_loop_is_recorded_beside_the_one_that_is_not(monkeypatch):
    done = []
    monkeypatch.setattr(bench, "CudaGraphs", lambda device: CountingBackend(done))
    monkeypatch.setattr(bench, "peak_bytes", bench.measure_memory)
    setting = attrs.evolve(TINY, model="mlp")
    rows = bench.run(setting, [bench.Subject("plain", graph=True), bench.Subject("erm")], repetitions=2)
    assert [(row["method"], row["graph"]) for row in rows] == [("plain", False), ("plain", True), ("erm", False)]
    # four steps whose time is taken, then three whose memory is
    assert done == ["run", "record", "replay", "replay", "run", "record", "replay"]
    assert rows[1]["floor"] == 1


def test_a_recorded_plain_loop_trains_as_the_loop_does(monkeypatch):
    monkeypatch.setattr(bench, "CudaGraphs", lambda device: CpuBackend())
    networks = []
    build = bench.build_model
    monkeypatch.setattr(bench, "build_model", lambda *given: networks.append(build(*given)) or networks[-1])
    for graph in (False, True):
        step = bench.plain_steps(TINY, graph)
        for _ in range(4):
            step()
    one, other = (network.state_dict() for network in networks)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_what_cannot_be_recorded_is_a_row_of_the_benchmark_and_takes_no_other_with_it(monkeypatch, reweight):
    class Refusing(CpuBackend):
        def record(self, take):
            raise RecordingError("it cannot be")

    monkeypatch.setattr(bench, "CudaGraphs", lambda device: Refusing())
    rows = bench.run(TINY, [bench.Subject("plain", graph=True), bench.Subject("erm")], repetitions=1)
    assert [row.get("error") for row in rows] == [None, "it cannot be; use --graph off", None]
    assert "seconds_per_step" not in rows[1] and rows[2]["seconds_per_step"] > 0
    monkeypatch.setattr(bench, "run", lambda *given: rows)
    told = reweight("bench", "--methods", "erm", "--device", "cpu").out.splitlines()
    assert told[-1] == "plain, recorded: it cannot be; use --graph off"


def test_the_check_compares_every_look_ahead_with_double_backward(capsys):
    main(["check-grad", "--method", "l2rw", "--noise", "uniform:0.4", "--device", "cpu", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["strategy"] for row in rows] == ["double", "jvp", "fd", "fd", "fd", "head"]
    by_name = {(row["strategy"], row["length"]): row for row in rows}
    assert by_name["double", None]["relative_error"] == 0
    assert by_name["jvp", None]["relative_error"] < 1e-4
    assert by_name["jvp", None]["cosine"] == pytest.approx(1)
    assert 0 < min(row["relative_error"] for row in rows if row["strategy"] == "fd") < 0.05
    assert all(0 <= row["sign_agreement"] <= 1 for row in rows)


def test_check_grad_measures_half_precision_against_single(capsys):
    main(
        ["check-grad", "--method", "l2rw", "--noise", "uniform:0.4", "--device", "cpu", "--precision", "bf16", "--json"]
    )
    rows = json.loads(capsys.readouterr().out)
    assert [(row["precision"], row["strategy"]) for row in rows[:3]] == [
        ("fp32", "double"),
        ("bf16", "double"),
        ("bf16", "jvp"),
    ]
    assert rows[0]["relative_error"] == 0
    # eight bits of mantissa
    assert 1e-4 < rows[1]["relative_error"] < 0.2
