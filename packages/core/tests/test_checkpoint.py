import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from reweight_core import DataPlugin
from reweight_core.config.resolve import as_values, configure
from reweight_core.config.run_config import RunConfig
from reweight_core.data.features import Features
from reweight_core.engine.lookahead import Choice
from reweight_core.errors import UserError
from reweight_core.files import write_text
from reweight_core.plugins import registry
from reweight_core.runs import checkpoint
from reweight_core.runs import folder as run_folder

MODEL = {
    "weight": torch.tensor([[1.5, -0.0], [torch.inf, torch.nan]]),
    "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
    "scalar": torch.tensor(0.1, dtype=torch.float64),
    "empty": torch.empty(0, 4),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
}
STATE = {
    "generator": torch.Generator().manual_seed(3).get_state(),
    "visits": torch.tensor([2**62, -1]),
    "mask": torch.tensor([True, False]),
}


def save(folder, step, model=MODEL, state=STATE):
    manifest = checkpoint.Manifest(
        run="r",
        step=step,
        epoch=step,
        stage="train",
        position=checkpoint.Position(1, 2, 3),
        seconds=1.5,
        lookahead=Choice("fd", 1e-3, 0.004),
        history=[{"epoch": 1, "train_loss": 0.5}],
        model="mlp",
        head="linear",
        input_shape=(2, 1, 1),
        classes=("no", "yes"),
        mean=(0.0, 1.0),
        std=(1.0, 2.0),
        features=Features(("a", "b"), (0.0, 1.0), (1.0, 2.0)),
        data_fingerprint="f",
        held_out_test=None,
    )
    return checkpoint.save(folder, checkpoint.Checkpoint(model, state, manifest), keep=2)


@contextmanager
def other_format(later=1):
    """Be a version of the program whose checkpoints have another format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + later)
        yield


@pytest.fixture
def disk(monkeypatch):
    """Notes what is flushed and renamed, in order; files are told by their number, which stays theirs when renamed."""
    events, fsync = [], os.fsync

    def flushed(descriptor):
        events.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def noting(rename):
        def renamed(source, target, **options):
            contents = [Path(source), *Path(source).glob("*")]
            events.append(("rename", Path(target).name, {path.stat().st_ino for path in contents}))
            rename(source, target, **options)

        return renamed

    monkeypatch.setattr(os, "fsync", flushed)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return events


def flushed_before(disk, name):
    """The numbers of what was flushed before something was given this name, and of what it consists of."""
    (place,) = [i for i, event in enumerate(disk) if event[:2] == ("rename", name)]
    return {event[1] for event in disk[:place] if event[0] == "flush"}, disk[place][2]


def flushed_after(disk, name):
    (place,) = [i for i, event in enumerate(disk) if event[:2] == ("rename", name)]
    return {event[1] for event in disk[place:] if event[0] == "flush"}


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


def same_bits(a, b):
    as_bytes = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*as_bytes)


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 7)
    found = checkpoint.load_latest(tmp_path)
    for saved, loaded in ((MODEL, found.model), (STATE, found.state)):
        assert saved.keys() == loaded.keys()
        assert all(same_bits(saved[name], loaded[name]) for name in saved)
    assert (found.manifest.step, found.manifest.stage, found.manifest.epoch) == (7, "train", 7)


def test_a_checkpoint_consists_of_safetensors_and_json_alone(tmp_path):
    path = save(tmp_path, 7)
    assert path.name == "step-00000007"
    assert {p.name for p in path.iterdir()} == {"model.safetensors", "state.safetensors", "manifest.json"}


def test_the_manifest_describes_the_files(tmp_path):
    path = save(tmp_path, 7)
    files = json.loads((path / "manifest.json").read_text())["files"]
    sizes = {name: (path / name).stat().st_size for name in ("model.safetensors", "state.safetensors")}
    assert {name: entry["bytes"] for name, entry in files.items()} == sizes


def test_the_newest_two_stay(tmp_path):
    for step in (1, 2, 10, 9):
        save(tmp_path, step)
    assert steps(tmp_path) == ["step-00000009", "step-00000010"]
    assert checkpoint.load_latest(tmp_path).manifest.step == 10


def test_the_same_step_saved_again_replaces_the_first(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 1, model={"weight": torch.ones(1)})
    assert checkpoint.load_latest(tmp_path).model.keys() == {"weight"}


@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "manifest.json"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, name, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2) / name
    # the last byte of a manifest is a newline, which may be missing
    if name == "manifest.json" and damage is not Path.unlink:
        newest.write_text(newest.read_text().rstrip())
    damage(newest)
    assert checkpoint.load_latest(tmp_path).manifest.step == 1


def test_when_all_are_damaged_the_error_names_each(tmp_path):
    for step in (1, 2):
        truncate(save(tmp_path, step) / "state.safetensors")
    with pytest.raises(UserError, match="no checkpoint is whole") as caught:
        checkpoint.load_latest(tmp_path)
    assert "step-00000001: state.safetensors differs from its checksum" in str(caught.value)
    assert "step-00000002" in str(caught.value)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_checkpoints_is_an_error(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "none"
    with pytest.raises(UserError, match="no checkpoint here"):
        checkpoint.load_latest(folder)


def test_folders_of_other_names_are_neither_read_nor_removed(tmp_path):
    others = ["notes", "step-00000000-copy", "step-00000009-copy", "step-9"]
    for name in others:
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert checkpoint.load_latest(tmp_path).manifest.step == 3
    assert steps(tmp_path) == sorted([*others, "step-00000002", "step-00000003"])


def test_a_leftover_of_an_interrupted_write_is_ignored_and_replaced(tmp_path):
    save(tmp_path, 1)
    leftover = tmp_path / ".step-00000002.partial"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"torn")
    (leftover / "junk").write_bytes(b"")
    assert checkpoint.load_latest(tmp_path).manifest.step == 1
    assert not (save(tmp_path, 2) / "junk").exists()
    assert checkpoint.load_latest(tmp_path).manifest.step == 2
    assert not leftover.exists()


def test_a_write_that_is_interrupted_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)

    def interrupted(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 3)
    assert [name for name in steps(tmp_path) if name.startswith("step")] == ["step-00000001", "step-00000002"]
    assert checkpoint.load_latest(tmp_path).manifest.step == 2
    save(tmp_path, 3)
    assert checkpoint.load_latest(tmp_path).manifest.step == 3


def test_a_checkpoint_is_on_disk_before_it_has_its_name_and_its_name_at_once(tmp_path, disk):
    path = save(tmp_path, 1)
    flushed, parts = flushed_before(disk, path.name)
    assert parts == {part.stat().st_ino for part in (path, *path.iterdir())}
    assert len(parts) == 4
    assert parts <= flushed
    assert tmp_path.stat().st_ino in flushed_after(disk, path.name)


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_at_once(tmp_path, disk):
    write_text(tmp_path / "summary.json", "{}")
    flushed, parts = flushed_before(disk, "summary.json")
    assert parts == {(tmp_path / "summary.json").stat().st_ino}
    assert parts <= flushed
    assert tmp_path.stat().st_ino in flushed_after(disk, "summary.json")


def test_a_checkpoint_that_cannot_be_replaced_stands(tmp_path, monkeypatch):
    save(tmp_path, 1, model={"w": torch.zeros(1)})

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 1, model={"w": torch.ones(1)})
    assert checkpoint.load_latest(tmp_path).model["w"].item() == 0


def test_a_checkpoint_of_another_format_is_not_read_though_it_is_whole(tmp_path):
    save(tmp_path, 1)
    with other_format():
        save(tmp_path, 2)
        assert checkpoint.load_latest(tmp_path).manifest.step == 2
    assert checkpoint.load_latest(tmp_path).manifest.step == 1
    with other_format(2), pytest.raises(UserError, match=r"step-00000002: format \d+ is not \d+"):
        checkpoint.load_latest(tmp_path)


def test_tied_tensors_and_views_can_be_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save(tmp_path, 1, model={"encoder": weight, "decoder": weight, "row": weight[0], "column": weight[:, 1]})
    model = checkpoint.load_latest(tmp_path).model
    assert torch.equal(model["encoder"], weight)
    assert torch.equal(model["decoder"], weight)
    assert torch.equal(model["row"], weight[0])
    assert torch.equal(model["column"], weight[:, 1])


def test_without_out_runs_are_numbered_below_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [run_folder.create(RunConfig()) for _ in range(3)]
    assert folders == [Path("runs") / f"erm-digits-{number}" for number in (1, 2, 3)]
    assert all(folder.is_dir() for folder in folders)


def test_out_is_made_with_its_parents_or_taken_if_empty(tmp_path):
    out = tmp_path / "a" / "b"
    for _ in range(2):
        assert run_folder.create(RunConfig(out=out)) == out
        assert out.is_dir()


def test_out_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"--out {tmp_path}: .*not empty"):
        run_folder.create(RunConfig(out=tmp_path))


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_out_that_cannot_be_made_is_refused(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"--out {tmp_path / out}: "):
        run_folder.create(RunConfig(out=tmp_path / out))


def content_of_config(options):
    environment = {"plugins": {"method": "a 1.0"}, "versions": {"torch": "2.6.0"}, "device": "cpu", "threads": 2}
    return {
        "format": 1,
        "options": options,
        **environment,
        "precision": "fp32",
        "run": "r",
        "data": {"fingerprint": "f"},
    }


def test_the_options_of_a_run_are_read_back(tmp_path, monkeypatch):
    find, names = registry.find, registry.names
    digits = DataPlugin(name="digits", summary="none", build=lambda config: None)
    monkeypatch.setattr(registry, "find", lambda kind, name: digits if kind == "data" else find(kind, name))
    monkeypatch.setattr(registry, "names", lambda kind: ["digits"] if kind == "data" else names(kind))
    config = configure(method="erm", lr=0.3, out=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(content_of_config(as_values(config))))
    found = run_folder.read_config(tmp_path)
    assert (found.config, found.precision, found.environment.threads) == (config, "fp32", 2)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", "{}", '{"options": null}', '{"options": "text"}'])
def test_a_folder_without_a_readable_config_is_not_a_run(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"{tmp_path}: not the folder of a run"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize(
    "options", [{"method": "not-installed"}, {"epochs": None}, {"epochs": "many"}, {"unheard_of": 1}]
)
def test_options_that_the_installed_version_cannot_read_are_refused(tmp_path, options):
    (tmp_path / "config.json").write_text(json.dumps(content_of_config(options)))
    with pytest.raises(UserError, match=f"{tmp_path / 'config.json'}: "):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize("missing", ["format", "plugins", "versions", "device", "threads", "precision", "run", "data"])
def test_a_config_without_what_a_result_depends_on_is_not_that_of_a_run(tmp_path, missing):
    content = content_of_config({"method": "erm"})
    del content[missing]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"not the folder of a run .*{missing}"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"sha256": "x"}', '{"files": []}', "not json"])
def test_a_manifest_of_another_shape_is_damage_like_any_other(tmp_path, content):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "manifest.json").write_text(content)
    assert checkpoint.load_latest(tmp_path).manifest.step == 1


def test_a_changed_manifest_is_not_believed(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "manifest.json"
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 3'))
    assert checkpoint.load_latest(tmp_path).manifest.step == 1


def test_a_write_that_is_stopped_between_the_old_and_the_new_checkpoint_keeps_the_old(tmp_path, monkeypatch):
    save(tmp_path, 1, model={"w": torch.zeros(1)})
    renamed, rename = [], Path.rename

    def stopped_at_the_second(self, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 1, model={"w": torch.ones(1)})
    assert checkpoint.load_latest(tmp_path).model["w"].item() == 0
    save(tmp_path, 1, model={"w": torch.ones(1)})
    assert checkpoint.load_latest(tmp_path).model["w"].item() == 1
    assert steps(tmp_path) == ["step-00000001"]


def test_a_step_saved_again_replaces_the_first(tmp_path):
    save(tmp_path, 1, model={"w": torch.zeros(1)})
    save(tmp_path, 1, model={"w": torch.ones(1)})
    assert checkpoint.load_latest(tmp_path).model["w"].item() == 1
    assert steps(tmp_path) == ["step-00000001"]


def test_the_manifest_comes_back_as_it_was(tmp_path):
    save(tmp_path, 1, model={"w": torch.zeros(1)})
    found = checkpoint.load_latest(tmp_path).manifest
    assert found == checkpoint.Manifest.from_json(json.loads(json.dumps(found.as_json())))
    assert (found.classes, found.input_shape) == (("no", "yes"), (2, 1, 1))
    assert found.features == Features(("a", "b"), (0.0, 1.0), (1.0, 2.0))
    assert found.lookahead == Choice("fd", 1e-3, 0.004)
