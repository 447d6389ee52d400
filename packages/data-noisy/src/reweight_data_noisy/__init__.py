"""Datasets and label noise of the re-weighting papers, as plugins of reweight.

This module holds only the plugin records. The modules that they build from are imported on first use, to keep
listing plugins fast. No module may be named like a record: importing it would replace the record.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from reweight_core import DataPlugin, NoisePlugin, option

if TYPE_CHECKING:
    from reweight_core import Dataset
    from reweight_core.plugins.records import NoOptions


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
        True, "Keep the decoded images in ~/.cache/reweight and read them from there while the files stay the same."
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
        None,
        "Folder with train/CLASS/*, test/CLASS/* and optionally meta/CLASS/* (clean examples).",
        changes_result=False,
    )


@attrs.frozen
class CsvOptions(ImageOptions):
    """Where CSV files are."""

    data_root: Path | None = option(
        None,
        "Folder with train.csv (file,label[,true_label][,id], or features in place of file) and optionally test.csv "
        "and meta.csv (clean examples).",
        changes_result=False,
    )


@attrs.frozen
class LargeOptions:
    """Where a large dataset is, and the size its images are brought to as they are read."""

    data_root: Path | None = option(
        None, "Folder that holds the official files as their archives extract.", changes_result=False
    )
    image_size: int = option(224, "Side of the images that the network sees, in pixels.", check=attrs.validators.gt(0))


def _build_digits(config: NoOptions) -> Dataset:
    from reweight_data_noisy.load_digits import load

    return load()


def _build_cifar10(config: FilesOptions) -> Dataset:
    from torchvision.datasets import CIFAR10

    from reweight_data_noisy.load_cifar import load

    return load(CIFAR10, config)


def _build_cifar100(config: FilesOptions) -> Dataset:
    from torchvision.datasets import CIFAR100

    from reweight_data_noisy.load_cifar import load

    return load(CIFAR100, config)


def _build_cifar10n(config: PeoplesLabelsOf10Options) -> Dataset:
    from torchvision.datasets import CIFAR10

    from reweight_data_noisy.load_cifar_n import KEYS, load

    return load(CIFAR10, config, "CIFAR-10_human.pt", KEYS[config.labels])


def _build_cifar100n(config: PeoplesLabelsOptions) -> Dataset:
    from torchvision.datasets import CIFAR100

    from reweight_data_noisy.load_cifar_n import load

    return load(CIFAR100, config, "CIFAR-100_human.pt", "noisy_label")


def _build_mnist(config: FilesOptions) -> Dataset:
    from torchvision.datasets import MNIST

    from reweight_data_noisy.load_mnist import load

    return load(MNIST, config)


def _build_fashion_mnist(config: FilesOptions) -> Dataset:
    from torchvision.datasets import FashionMNIST

    from reweight_data_noisy.load_mnist import load

    return load(FashionMNIST, config)


def _build_four_versus_nine(config: FourVersusNineOptions) -> Dataset:
    from reweight_data_noisy.load_mnist import load_four_versus_nine

    return load_four_versus_nine(config)


def _build_folder(config: FolderOptions) -> Dataset:
    from reweight_data_noisy.load_folder import load

    return load(config)


def _build_csv(config: CsvOptions) -> Dataset:
    from reweight_data_noisy.load_csv import load

    return load(config)


def _build_clothing1m(config: LargeOptions) -> Dataset:
    from reweight_data_noisy.load_clothing1m import load

    return load(config)


def _build_webvision_50(config: LargeOptions) -> Dataset:
    from reweight_data_noisy.load_webvision import load

    return load(config)


def _build_inaturalist_2018(config: LargeOptions) -> Dataset:
    from reweight_data_noisy.load_inaturalist import load

    return load(config)


def _noise(kind: str, summary: str, takes_file: bool = False) -> NoisePlugin:
    def build(argument: str) -> Any:
        from reweight_data_noisy.noise import parse

        return parse(kind, argument)

    return NoisePlugin(name=kind, summary=summary, build=build, takes_file=takes_file)


def _long_tail(plugin: DataPlugin, imb: float) -> DataPlugin:
    return attrs.evolve(
        plugin,
        name=f"{plugin.name}-lt",
        summary=f"{plugin.name} with a long tail (--imb {imb} unless given)",
        defaults={**plugin.defaults, "imb": imb},
    )


digits = DataPlugin(
    name="digits",
    summary="scikit-learn's 8x8 handwritten digits: 10 classes, nothing to download, runs in seconds",
    build=_build_digits,
    defaults={
        "model": "mlp",
        "epochs": 100,
        "lr": 0.1,
        "batch_size": 100,
        "meta_size": 100,
        "weight_lr": 1e-2,
        "dictionary_size": 200,
        "probe_size": 100,
    },
)
cifar10 = DataPlugin(
    name="cifar10",
    summary="CIFAR-10: 32x32 colour images, 10 classes, 50,000 for training",
    build=_build_cifar10,
    config=FilesOptions,
    defaults={"model": "resnet32", "meta_size": 1000},
)
cifar100 = DataPlugin(
    name="cifar100",
    summary="CIFAR-100: 32x32 colour images, 100 classes, 50,000 for training",
    build=_build_cifar100,
    config=FilesOptions,
    # GDW spreads its class-weight step over n*C entries: ten times the classes need ten times the step
    defaults={"model": "resnet32", "meta_size": 1000, "eta_w": 1000.0},
)
cifar10n = DataPlugin(
    name="cifar10n",
    summary="CIFAR-10N: CIFAR-10 with the labels of three people (--labels), up to 40 % of them wrong",
    build=_build_cifar10n,
    config=PeoplesLabelsOf10Options,
    defaults=cifar10.defaults,
)
cifar100n = DataPlugin(
    name="cifar100n",
    summary="CIFAR-100N: CIFAR-100 with labels that people gave, 40 % of them wrong",
    build=_build_cifar100n,
    config=PeoplesLabelsOptions,
    defaults=cifar100.defaults,
)
mnist = DataPlugin(
    name="mnist",
    summary="MNIST: 28x28 grey digits, 10 classes, 60,000 for training",
    build=_build_mnist,
    config=FilesOptions,
    defaults={"model": "lenet", "meta_size": 1000, "epochs": 20, "lr": 0.01},
)
fashion_mnist = DataPlugin(
    name="fashion-mnist",
    summary="Fashion-MNIST: 28x28 grey images of clothes, 10 classes, 60,000 for training",
    build=_build_fashion_mnist,
    config=FilesOptions,
    defaults={"model": "lenet", "meta_size": 1000, "epochs": 20, "lr": 0.01},
)
mnist_4v9 = DataPlugin(
    name="mnist-4v9",
    summary="L2RW's binary imbalance task: 5,000 images of nines and few fours, a clean set of 10",
    build=_build_four_versus_nine,
    config=FourVersusNineOptions,
    defaults={"model": "lenet", "steps": 8000, "lr": 1e-3, "schedule": "constant", "weight_decay": 0.0},
)
folder = DataPlugin(
    name="folder",
    summary="your own images: ROOT/train/CLASS/*, ROOT/test/CLASS/*, optionally ROOT/meta/CLASS/*",
    build=_build_folder,
    config=FolderOptions,
)
csv = DataPlugin(
    name="csv",
    summary="your own data in CSV files: images by path (file,label), or numeric features",
    build=_build_csv,
    config=CsvOptions,
)
clothing1m = DataPlugin(
    name="clothing1m",
    summary="Clothing1M: a million photographs of clothes, 14 classes, noisy labels, a clean set of 14,313",
    build=_build_clothing1m,
    config=LargeOptions,
    # GDW, section 4.3
    defaults={
        "model": "resnet18",
        "pretrained": True,
        "epochs": 5,
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "batch_size": 128,
        "checkpoint_every": 1,
    },
)
webvision_50 = DataPlugin(
    name="webvision-50",
    summary="WebVision 1.0, the first 50 classes: images and noisy labels from a search engine",
    build=_build_webvision_50,
    config=LargeOptions,
    defaults={"model": "resnet50", "batch_size": 128, "weight_decay": 1e-4, "checkpoint_every": 1},
)
inaturalist_2018 = DataPlugin(
    name="inaturalist-2018",
    summary="iNaturalist 2018: photographs of 8,142 species, a long tail by nature",
    build=_build_inaturalist_2018,
    config=LargeOptions,
    defaults={"model": "resnet50", "batch_size": 128, "weight_decay": 1e-4, "checkpoint_every": 1},
)
digits_lt = _long_tail(digits, 0.1)
mnist_lt = _long_tail(mnist, 0.01)
fashion_mnist_lt = _long_tail(fashion_mnist, 0.01)
cifar10_lt = _long_tail(cifar10, 0.01)
cifar100_lt = _long_tail(cifar100, 0.01)
cifar10n_lt = _long_tail(cifar10n, 0.01)
cifar100n_lt = _long_tail(cifar100n, 0.01)
folder_lt = _long_tail(folder, 0.01)
csv_lt = _long_tail(csv, 0.01)

uniform = _noise("uniform", "uniform:RATE redraws each label with probability RATE, uniformly over all C classes")
uniform_exclusive = _noise(
    "uniform-exclusive", "uniform-exclusive:RATE turns each label with probability RATE into another class"
)
l2rw_uniform = _noise(
    "l2rw-uniform", "l2rw-uniform:RATE redraws exactly this share of the labels, over all classes but the last (L2RW)"
)
flip = _noise("flip", "flip:RATE turns each label with probability RATE into its class's one fixed other class")
flip2 = _noise("flip2", "flip2:RATE turns each label with probability RATE into one of two fixed other classes")
background = _noise(
    "background", "background:RATE[:CLASS] turns exactly this share of the labels into one class (L2RW)"
)
asymmetric = _noise(
    "asymmetric", "asymmetric:RATE turns five of CIFAR-10's classes with probability RATE into similar ones (FSR)"
)
hierarchical = _noise(
    "hierarchical", "hierarchical:RATE redraws a CIFAR-100 label with probability RATE within its superclass"
)
matrix = _noise(
    "matrix",
    "matrix:FILE draws each label from its class's row of a transition matrix in a text file",
    takes_file=True,
)
