"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017), from their official files through torchvision."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST, FashionMNIST

from reweight_core import Dataset, Split, UserError
from reweight_data_noisy.options import FilesOptions, FourVersusNineOptions

LEFT_OUT = 5000
"""Images at the start of the training file that L2RW's source of MNIST keeps for validation."""

BUDGET = 5000
VALIDATION = 5
"""Images of the imbalanced task, and how many of each class are its clean validation set."""

READERS: dict[str, type[MNIST]] = {"mnist": MNIST, "fashion-mnist": FashionMNIST}
"""torchvision's class for each dataset."""

STATISTICS = {"mnist": (33.3, 78.6), "fashion-mnist": (72.9, 90.0)}
"""Mean and standard deviation of the training images' pixels."""


def load(name: str, config: FilesOptions) -> Dataset:
    """Load grey images (N, 1, 28, 28), without augmentation.

    Args:
        name: a key of `READERS`.
        config: where the files are.

    Raises:
        UserError: if a file is missing or cannot be read, or if the download fails.
    """
    reader = READERS[name]
    train, test = _read(reader, config.data_root.absolute(), config.download)
    mean, std = STATISTICS[name]
    classes = tuple(text.partition(" - ")[0] for text in reader.classes)
    return Dataset(train=train, test=test, classes=classes, mean=(mean,), std=(std,))


def load_four_versus_nine(config: FourVersusNineOptions) -> Dataset:
    """Load L2RW's binary imbalance task (Ren et al., ICML 2018, section 4.1): fours are the minority.

    Of 5,000 images a share is nines; 5 of each class are the clean meta set and not trained on. The first 5,000 images
    of the training file are left out. Pixels are scaled to [0, 1].

    Raises:
        UserError: as `load`, or if a class has too few images.
    """
    train, test = _read(MNIST, config.data_root.absolute(), config.download)
    majority = config.majority
    # as the official code rounds: 0.9 leaves 499 fours, because 1 - 0.9 is a little less than 0.1
    wanted = {4: int(BUDGET * (1 - majority)), 9: int(BUDGET * majority)}
    rng = np.random.RandomState(config.subset_seed)
    chosen, trusted = [], []
    for digit, count in wanted.items():
        available = LEFT_OUT + np.flatnonzero(train.labels[LEFT_OUT:] == digit)
        if count <= VALIDATION or count > len(available):
            raise UserError(
                f"--majority {majority}: takes {count} images of digit {digit}; there must be more than {VALIDATION}, "
                f"and there are {len(available)}"
            )
        drawn = rng.permutation(available)[:count]
        trusted.append(drawn[:VALIDATION])
        chosen.append(np.sort(drawn[VALIDATION:]))
    tests = [np.flatnonzero(test.labels == digit) for digit in wanted]
    if config.test == "500":
        tests = [positions[:250] for positions in tests]
    return Dataset(
        train=_binary(train, np.concatenate(chosen)),
        test=_binary(test, np.concatenate(tests)),
        meta=_binary(train, np.concatenate(trusted)),
        classes=("4", "9"),
        mean=(0.0,),
        std=(255.0,),
    )


def _binary(split: Split, ids: np.ndarray) -> Split:
    taken = split.take(ids)
    return Split(taken.images, (taken.labels == 9).astype(np.int64), tuple(f"image {i}" for i in ids))


def _read(reader: type[MNIST], root: Path, download: bool) -> tuple[Split, Split]:
    folder = root / reader.__name__ / "raw"
    try:
        parts = [reader(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        if download:
            raise UserError(f"--download: cannot fetch {reader.__name__} into {root} ({error})") from error
        names = ", ".join(Path(url).stem for url, _ in reader.resources)
        raise UserError(f"{folder}: files are missing; give --download, or put {names} there") from error
    except (OSError, HTTPException) as error:
        what = f"--download: cannot fetch {reader.__name__} into {root}" if download else f"{folder}: cannot be read"
        raise UserError(f"{what} ({error})") from error
    except (ValueError, AssertionError, KeyError, IndexError) as error:
        raise UserError(
            f"{folder}: a file is corrupt ({error or type(error).__name__}); remove it and fetch it again"
        ) from error
    train, test = (
        Split(np.ascontiguousarray(part.data.numpy()[:, None]), part.targets.numpy().astype(np.int64)) for part in parts
    )
    for part in (train, test):
        if part.images.shape != (len(part.labels), 1, 28, 28):
            raise UserError(
                f"{folder}: images and labels do not fit together ({part.images.shape}, {part.labels.shape})"
            )
    return train, test
