"""What several tests write: tiny datasets in official formats."""

import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def write_cifar(monkeypatch):
    """Write tiny CIFAR in the official format and make torchvision's class expect its checksums."""

    def write(root, reader, each=1):
        rng = np.random.RandomState(0)
        classes = 10 if reader is CIFAR10 else 100
        key = "labels" if reader is CIFAR10 else "fine_labels"
        folder = root / reader.base_folder

        def batch(name):
            labels = rng.permutation(np.repeat(np.arange(classes), each)).tolist()
            images = rng.randint(256, size=(len(labels), 3072)).astype(np.uint8)
            return write_pickle(folder / name, {"data": images, key: labels, "coarse_labels": [0] * len(labels)})

        train, test = ([batch(name) for name, _ in files] for files in (reader.train_list, reader.test_list))
        meta_name, md5 = write_pickle(
            folder / reader.meta["filename"], {reader.meta["key"]: [f"class {c}" for c in range(classes)]}
        )
        monkeypatch.setattr(reader, "train_list", train)
        monkeypatch.setattr(reader, "test_list", test)
        monkeypatch.setattr(reader, "meta", {"filename": meta_name, "key": reader.meta["key"], "md5": md5})

    return write
