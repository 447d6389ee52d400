from contextlib import contextmanager, nullcontext

import pytest
import torch

from reweight_core.engine.cuda_graphs import CudaGraphs, RecordedSteps, RecordingError, Watch
from reweight_core.engine.stage import Stage
from reweight_core.errors import UserError
from reweight_core.testing.recorder import CpuBackend

X = torch.tensor([3.0, 1.0, 2.0])
CPU = torch.device("cpu")


class Steps:
    """Notes what is run."""

    def __init__(self):
        self.ran, self.epochs = [], 0

    def run(self, size, stage, looks_ahead, epoch):
        self.ran.append((size, stage, looks_ahead, epoch))

    def begin_epoch(self):
        self.epochs += 1


class Backend:
    """Records nothing but says what was asked of it."""

    def __init__(self, fails=False):
        self.calls, self._fails = [], fails

    def run(self, take):
        self.calls.append("run")
        take()

    def record(self, take):
        if self._fails:
            raise RecordingError("it cannot be")
        self.calls.append("record")
        take()
        return lambda: self.calls.append("replay")


def test_the_third_step_of_a_kind_in_an_epoch_is_the_first_replayed():
    steps, backend = Steps(), Backend()
    recorded = RecordedSteps(steps, backend)
    for size in (10, 10, 10, 10, 4):
        recorded.run(size)
    assert backend.calls == ["run", "record", "replay", "replay", "run"]
    recorded.begin_epoch()
    for size in (10, 10, 4):
        recorded.run(size)
    assert backend.calls[5:] == ["run", "record", "run"]
    assert steps.epochs == 1


def test_steps_that_differ_in_anything_are_recorded_apart():
    steps, backend = Steps(), Backend()
    recorded = RecordedSteps(steps, backend)
    train, meta, both = (Stage("stage", 1, 0.1, source=source) for source in ("train", "meta", "both"))
    kinds = [(10, train, True, 7), (10, train, False, 7), (10, meta, True, 7), (10, both, True, 7), (9, train, True, 7)]
    for _ in range(3):
        for kind in kinds:
            recorded.run(*kind)
    assert backend.calls == ["run"] * 5 + ["record"] * 5 + ["replay"] * 5
    assert steps.ran == kinds * 2


def test_what_cannot_be_recorded_is_said_once_and_every_step_is_taken():
    steps, backend = Steps(), Backend(fails=True)
    recorded = RecordedSteps(steps, backend)
    recorded.run(10)
    with pytest.warns(UserWarning, match="--graph auto: it cannot be; every step runs by itself") as warned:
        for _ in range(4):
            recorded.run(10)
        recorded.begin_epoch()
        recorded.run(10)
    assert len(warned) == 1
    assert len(steps.ran) == 6


def test_where_recordings_are_required_it_is_an_error():
    recorded = RecordedSteps(Steps(), Backend(fails=True), required=True)
    recorded.run(10)
    with pytest.raises(UserError, match="--graph on: it cannot be; use --graph auto or off"):
        recorded.run(10)


def test_the_cpu_backend_says_what_reads_values():
    with pytest.raises(RecordingError, match="a recorded step cannot"):
        CpuBackend().record(lambda: X.sum().item())


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda: X.sum().item(), "item"),
        (lambda: bool(X[0] > 1), "__bool__"),
        (lambda: 1 if X[0] > 1 else 0, "__bool__"),
        (lambda: int(X.argmax()), "__int__"),
        (lambda: range(5)[X.argmax()], "__index__"),
        (lambda: float(X[0]), "__float__"),
        (lambda: X.tolist(), "tolist"),
        (lambda: X.numpy(), "numpy"),
        (lambda: X.cpu(), "cpu"),
        (lambda: X[X > 1], "__getitem__"),
        (lambda: X[None][:, X > 1], "__getitem__"),
        (lambda: X.clone().__setitem__(X > 1, 0.0), "__setitem__"),
        (lambda: torch.repeat_interleave(X, X.long()), "repeat_interleave"),
        (lambda: X.nonzero(), "nonzero"),
        (lambda: torch.nonzero(X), "nonzero"),
        (lambda: torch.equal(X, X), "equal"),
        (lambda: torch.unique(X), "unique"),
        (lambda: torch.bincount(X.long()), "bincount"),
        (lambda: X.masked_select(X > 1), "masked_select"),
    ],
)
def test_reading_values_is_noticed(read, name):
    watch = Watch(CPU)
    with watch:
        read()
    assert name in watch.reads


def test_what_stays_on_the_device_is_not_taken_for_a_read():
    watch = Watch(CPU)
    with watch:
        y = X[torch.tensor([0, 2])] + X[None, :2].sum() + torch.where(X > 1, X, 0).mean()
        y.softmax(0).argsort()
    assert watch.reads == set()


def test_generators_are_found_where_they_are_used_once_each():
    known, used = torch.Generator(), torch.Generator()
    watch = Watch(CPU, [known])
    with watch:
        torch.rand(2, generator=used)
        X.clone().uniform_(generator=known)
        torch.randint(3, (2,), generator=used)
        torch.rand(2)
    assert [id(generator) for generator in watch.generators] == [id(known), id(used)]


class FakeCuda:
    """torch.cuda as far as recording uses it; notes what is done in which order."""

    def __init__(self, error=None):
        self.done, self._error = [], error

    def install(self, monkeypatch):
        cuda = self

        class Graph:
            def register_generator_state(self, generator):
                cuda.done.append(("register", generator))

            def replay(self):
                cuda.done.append("replay")

        @contextmanager
        def capture(graph, stream, capture_error_mode):
            cuda.done.append(("capture", capture_error_mode))
            yield
            if cuda._error is not None:
                raise cuda._error

        class Stream:
            def __init__(self, device=None):
                pass

            def wait_stream(self, other):
                cuda.done.append("wait")

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", capture)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
        return CudaGraphs(torch.device("cuda"))


class CudaGenerator:
    device = torch.device("cuda")


def test_a_cuda_graph_knows_its_generators_lets_other_threads_work_and_is_replayed_at_once(monkeypatch):
    cuda = FakeCuda()
    graphs, generator, taken = cuda.install(monkeypatch), CudaGenerator(), []
    graphs.run(lambda: taken.append(0))
    graphs._watch.generators.append(generator)
    assert cuda.done == ["wait", "wait"]
    replay = graphs.record(lambda: taken.append(1))
    assert cuda.done[2:] == [("register", generator), ("capture", "thread_local"), "replay"]
    replay()
    assert cuda.done[-1] == "replay" and taken == [0, 1]


def test_a_failed_capture_says_why_and_full_memory_stays_what_it_is(monkeypatch):
    with pytest.raises(RecordingError, match=r"cannot be recorded as a CUDA graph \(RuntimeError: not permitted"):
        FakeCuda(RuntimeError("not permitted\nmore")).install(monkeypatch).record(lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        FakeCuda(torch.OutOfMemoryError("full")).install(monkeypatch).record(lambda: None)


def test_draws_on_the_cpu_cannot_be_recorded(monkeypatch):
    cuda = FakeCuda()
    graphs = cuda.install(monkeypatch)
    graphs.run(lambda: torch.rand(2, generator=torch.Generator()))
    with pytest.raises(RecordingError, match="draws random numbers on the CPU"):
        graphs.record(lambda: None)
    assert "replay" not in cuda.done
