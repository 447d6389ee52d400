"""Files are written whole or not at all."""

import errno
import json
import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from reweight_core import UserError, refuse_outputs, written_whole
from reweight_core.files import write_json, write_text


@pytest.fixture
def calls(monkeypatch):
    """What is flushed and renamed, in order: what a flushed file holds, `folder`, or both names."""
    made = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        made.append(("flush", "folder" if is_folder else os.pread(descriptor, 99, 0).decode()))
        fsync(descriptor)

    def rename(old, new):
        made.append(("rename", old, new))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    return made


@pytest.mark.parametrize("shared", [False, True])
def test_all_is_on_disk_before_the_name_changes_and_the_name_before_it_ends(shared, calls, tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path, shared=shared) as partial:
        partial.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it" and os.listdir(tmp_path) == ["a.txt"]
    assert calls == [("flush", "all of it"), ("rename", partial, path), ("flush", "folder")]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_else(error, shared, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), written_whole(path, shared=shared) as partial:
        partial.write_text("half of")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_name_that_cannot_be_taken_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]


def test_two_that_write_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path, shared=True) as one, written_whole(path, shared=True) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_a_file_has_the_permissions_that_new_files_get(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        with written_whole(tmp_path / "a.safetensors") as partial:
            save_file({"a": np.zeros(3)}, partial)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_text_is_written_as_it_is_and_json_can_be_read_back(tmp_path):
    write_text(tmp_path / "a", "é\r\n\n")
    assert (tmp_path / "a").read_bytes() == "é\r\n\n".encode()
    write_json(tmp_path / "b", {"x": [1, None, "ü"]})
    assert json.loads((tmp_path / "b").read_text(encoding="utf-8")) == {"x": [1, None, "ü"]}


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path(""), Path("/")):
        with pytest.raises(OSError):
            write_text(path, "x")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_full_disk_under_safetensors_is_an_error_of_the_system(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError) as told, written_whole(tmp_path / "x.safetensors") as partial:
            save_file({"x": np.zeros(1000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_checked_before_work_begins(tmp_path):
    refuse_outputs({"--csv": tmp_path / "a", "--html": tmp_path / "b", "--json": None})
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path / ("x" * 300), Path("")):
        with pytest.raises(UserError, match="--csv"):
            refuse_outputs({"--csv": wrong})
    with pytest.raises(UserError, match=r"--html .*a: is the file of --csv too"):
        refuse_outputs({"--csv": tmp_path / "a", "--html": tmp_path / "a"})
