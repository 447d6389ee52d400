import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from reweight_core import UserError, configure
from reweight_core.cli.main import main
from reweight_core.config.load_data import load_data as prepared
from reweight_core.testing import DataSuite
from reweight_data_noisy.options import FilesOptions
from reweight_data_noisy.readers.cifar import load as load_cifar

KEYS = {"aggre_label": 5, "random_label1": 8, "random_label2": 9, "random_label3": 10, "worse_label": 20}
"""The label sets of CIFAR-10N, and how many of the test's fifty labels are wrong in each."""


def people_say(true, classes, wrong, seed):
    labels = true.copy()
    chosen = np.random.RandomState(seed).permutation(len(true))[:wrong]
    labels[chosen] = (labels[chosen] + 1 + seed) % classes
    return labels


@pytest.fixture
def write_cifar_n(write_cifar):
    """Write tiny CIFAR and its file of people's labels; return what that holds."""

    def write(root, reader, each=1):
        write_cifar(root, reader, each)
        true = np.array(reader(root).targets)
        if reader is CIFAR10:
            content = {key: people_say(true, 10, wrong, seed) for seed, (key, wrong) in enumerate(KEYS.items())}
        else:
            content = {"noisy_label": people_say(true, 100, 2 * len(true) // 5, 0), "noisy_coarse_label": true // 5}
        content["clean_label"] = true
        torch.save(content, root / f"{'CIFAR-10' if reader is CIFAR10 else 'CIFAR-100'}_human.pt")
        return content

    return write


def rewrite(path, old, new):
    """Change the pickle inside a file that torch wrote."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in parts if name.endswith("data.pkl"))
    parts[name] = re.sub(old, new, parts[name])
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)


def read(root, **options):
    return prepared(configure(data="cifar10n", data_root=root, meta_size=0, **options))


def refusal(root):
    with pytest.raises(UserError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    assert "github.com/UCSC-REAL/cifar-10-100n" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "worse_label"),
        ({"labels": "worst"}, "worse_label"),
        ({"labels": "aggre"}, "aggre_label"),
        ({"labels": "random1"}, "random_label1"),
        ({"labels": "random2"}, "random_label2"),
        ({"labels": "random3"}, "random_label3"),
    ],
)
def test_training_sees_the_label_set_that_is_asked_for(options, key, tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR10)
    data = read(tmp_path, **options)
    assert (data.train.labels == content[key]).all()
    assert (data.true_labels == content["clean_label"]).all()
    assert data.noise_rate == KEYS[key] / 50


def test_all_but_the_labels_is_cifar(tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR100)
    data = prepared(configure(data="cifar100n", data_root=tmp_path, meta_size=0))
    plain = load_cifar("cifar100", FilesOptions(data_root=tmp_path))
    for found, expected in ((data.dataset.train, plain.train), (data.test, plain.test)):
        assert (found.images == expected.images).all()
        assert (found.labels == expected.labels).all()
    assert data.dataset.classes == plain.classes
    assert (data.train.labels == content["noisy_label"]).all()
    assert data.noise_rate == 0.4


def test_the_meta_set_has_true_labels_and_the_rest_its_own_observed_ones(tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR10)
    data = prepared(configure(data="cifar10n", data_root=tmp_path, meta_size=20))
    of_image = {image.tobytes(): i for i, image in enumerate(data.dataset.train.images)}
    trusted = [of_image[image.tobytes()] for image in data.meta.images]
    assert (data.meta.labels == content["clean_label"][trusted]).all()
    positions = [of_image[image.tobytes()] for image in data.train.images]
    assert (data.train.labels == content["worse_label"][positions]).all()
    assert sorted(trusted + positions) == list(range(50))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_files_of_numpy_1_and_2_load(module, dtype, tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR10)
    path = tmp_path / "CIFAR-10_human.pt"
    torch.save({key: labels.astype(dtype) for key, labels in content.items()}, path)
    rewrite(path, rb"numpy\._?core\.multiarray", module.encode())
    assert module.encode() in path.read_bytes()
    assert (read(tmp_path).train.labels == content["worse_label"]).all()


class Malicious:
    """Unpickling it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.mark.parametrize("how", ["torch", "torch, old format", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(how, tmp_path, write_cifar_n, capsys):
    content = write_cifar_n(tmp_path, CIFAR10)
    path, trace = tmp_path / "CIFAR-10_human.pt", tmp_path / "trace"
    content["worse_label"] = Malicious(trace)
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    assert "could run code" in refusal(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "--data", "cifar10n", "--data-root", str(tmp_path)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(path) in line
    assert not trace.exists()
    with open(path, "rb") as file:
        torch.load(file, weights_only=False) if how != "pickle" else pickle.load(file)
    assert trace.exists(), "the file would have run nothing anyway"


def test_nothing_stays_allowed_after_reading(tmp_path, write_cifar_n):
    write_cifar_n(tmp_path, CIFAR10)
    before = set(torch.serialization.get_safe_globals())
    read(tmp_path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_labels_of_another_order_are_refused(tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR10)
    order = np.random.RandomState(0).permutation(50)
    torch.save({key: labels[order] for key, labels in content.items()}, tmp_path / "CIFAR-10_human.pt")
    assert "is not CIFAR's own labels in their order" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:-1], "has no array 'worse_label' of 50 whole numbers"),
        (lambda labels: labels[:, None], "has no array 'worse_label' of 50 whole numbers"),
        (lambda labels: labels.tolist(), "has no array 'worse_label' of 50 whole numbers"),
        (lambda labels: labels - 1, "'worse_label' has a label outside 0..9"),
        (lambda labels: labels + 1, "'worse_label' has a label outside 0..9"),
        (lambda labels: labels / 2, "could run code"),
    ],
)
def test_labels_that_cannot_be_are_refused(change, message, tmp_path, write_cifar_n):
    content = write_cifar_n(tmp_path, CIFAR10)
    content["worse_label"] = change(content["worse_label"])
    torch.save(content, tmp_path / "CIFAR-10_human.pt")
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no file of torch", None])
def test_a_file_that_cannot_be_read_is_refused(content, tmp_path, write_cifar_n):
    write_cifar_n(tmp_path, CIFAR10)
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    assert str(path) in refusal(tmp_path)


def test_a_file_with_something_else_is_refused(tmp_path, write_cifar_n):
    write_cifar_n(tmp_path, CIFAR10)
    torch.save([1, 2], tmp_path / "CIFAR-10_human.pt")
    assert "has no array 'clean_label'" in refusal(tmp_path)


def test_a_missing_label_file_is_named_with_where_to_get_it(tmp_path, write_cifar_n):
    write_cifar_n(tmp_path, CIFAR10)
    (tmp_path / "CIFAR-10_human.pt").unlink()
    assert refusal(tmp_path).startswith(f"data 'cifar10n': {tmp_path / 'CIFAR-10_human.pt'} is missing; get it from ")


def test_cifar_itself_missing_is_said_as_ever(tmp_path, write_cifar_n):
    write_cifar_n(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.base_folder / "test_batch").unlink()
    with pytest.raises(UserError, match="test_batch is missing; give --download"):
        read(tmp_path)


class Files:
    """Gives the options of files that are written for the class."""

    @pytest.fixture
    def given(self, tmp_path, write_cifar_n):
        write_cifar_n(tmp_path, self.reader, self.each)
        return {"data_root": tmp_path}


class TestCIFAR10N(Files, DataSuite):
    name, reader, each = "cifar10n", CIFAR10, 1


class TestCIFAR100N(Files, DataSuite):
    name, reader, each, meta_size = "cifar100n", CIFAR100, 3, 100
