"""Options of the datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from reweight_core import option


@attrs.frozen
class FilesOptions:
    """Where a dataset's official files are."""

    data_root: Path = option(
        Path("data"),
        "Folder that holds (or gets) cifar-10-batches-py/, cifar-100-python/, MNIST/ or FashionMNIST/.",
        changes_result=False,
    )
    download: bool = option(False, "Fetch the official files if some are missing.", changes_result=False)


@attrs.frozen
class PeoplesLabelsOptions(FilesOptions):
    """Where the files of CIFAR and CIFAR-N are."""

    data_root: Path = option(
        Path("data"),
        "Folder that holds (or gets) CIFAR's cifar-10-batches-py/ or cifar-100-python/, and holds CIFAR-N's "
        "CIFAR-10_human.pt or CIFAR-100_human.pt.",
        changes_result=False,
    )
    download: bool = option(False, "Fetch CIFAR's own files if some are missing.", changes_result=False)


@attrs.frozen
class PeoplesLabelsOf10Options(PeoplesLabelsOptions):
    """CIFAR-10N: three people labelled every image."""

    labels: Literal["aggre", "random1", "random2", "random3", "worst"] = option(
        "worst",
        "Label set: a person's (random1 to random3), the majority's (aggre), or a wrong one if there is any (worst).",
    )


@attrs.frozen
class FourVersusNineOptions(FilesOptions):
    """L2RW's task of fours against nines."""

    majority: float = option(
        0.995, "Share of nines among the 5,000 images; the paper has 0.9 to 0.995.", check=attrs.validators.lt(1)
    )
    test: Literal["full", "500"] = option(
        "full", "Test images: all fours and nines, or the first 250 of each as in the official code."
    )
    subset_seed: int = option(0, "Seed of the draw of the images.", check=attrs.validators.ge(0))


@attrs.frozen
class ImageOptions:
    """The size a user's own images are brought to, and where they are kept while training."""

    image_size: int | None = option(
        None,
        "Resize the shorter side of every image to N pixels and keep the central N x N; "
        "default: images stay as they are and must all have one size.",
        check=attrs.validators.gt(0),
    )
    cache: bool = option(
        True,
        "Keep the decoded images in ~/.cache/reweight and read them from there while the files stay the same.",
        changes_result=False,
    )
    stream: Literal["auto", "on", "off"] = option(
        "auto",
        "Read images while training instead of keeping all in memory: on, off, or auto: on if they would take more "
        "than half of it. Needs --image-size.",
    )


@attrs.frozen
class FolderOptions(ImageOptions):
    """Where a folder of images is."""

    data_root: Path | None = option(
        None, "Folder with train/CLASS/*, test/CLASS/* and optionally meta/CLASS/* (clean examples)."
    )


@attrs.frozen
class CsvOptions(ImageOptions):
    """Where CSV files are."""

    data_root: Path | None = option(
        None,
        "Folder with train.csv (file,label[,true_label][,id], or features in place of file) and optionally test.csv "
        "and meta.csv (clean examples).",
    )


@attrs.frozen
class LargeOptions:
    """Where a large dataset is, and the size its images are brought to as they are read."""

    data_root: Path | None = option(
        None, "Folder that holds the official files as their archives extract.", changes_result=False
    )
    image_size: int = option(224, "Side of the images that the network sees, in pixels.", check=attrs.validators.gt(0))
