"""The records that the entry points name; what they build from is imported when it is used."""

from __future__ import annotations

import attrs

from reweight_core import DataPlugin, NoisePlugin, imported
from reweight_data_noisy.options import (
    CsvOptions,
    FilesOptions,
    FolderOptions,
    FourVersusNineOptions,
    LargeOptions,
    PeoplesLabelsOf10Options,
    PeoplesLabelsOptions,
)


def _noise(kind: str, summary: str, takes_file: bool = False) -> NoisePlugin:
    return NoisePlugin(kind, summary, imported("reweight_data_noisy.noise:parse", kind), takes_file)


def _by_image(kind: str, summary: str) -> NoisePlugin:
    build = imported("reweight_data_noisy.instance_dependent:parse", kind)
    return NoisePlugin(kind, summary, build, needs_images=True)


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
    build=imported("reweight_data_noisy.readers.digits:load"),
    defaults={
        "model": "mlp",
        "epochs": 100,
        "lr": 0.1,
        "batch_size": 100,
        "meta_size": 100,
    },
)
cifar10 = DataPlugin(
    name="cifar10",
    summary="CIFAR-10: 32x32 colour images, 10 classes, 50,000 for training",
    build=imported("reweight_data_noisy.readers.cifar:load", "cifar10"),
    config=FilesOptions,
    defaults={"model": "resnet32", "meta_size": 1000},
)
cifar100 = DataPlugin(
    name="cifar100",
    summary="CIFAR-100: 32x32 colour images, 100 classes, 50,000 for training",
    build=imported("reweight_data_noisy.readers.cifar:load", "cifar100"),
    config=FilesOptions,
    defaults={"model": "resnet32", "meta_size": 1000},
)
cifar10n = DataPlugin(
    name="cifar10n",
    summary="CIFAR-10N: CIFAR-10 with the labels of three people (--labels), up to 40 % of them wrong",
    build=imported("reweight_data_noisy.readers.cifar_n:load_cifar10n"),
    config=PeoplesLabelsOf10Options,
    defaults=cifar10.defaults,
)
cifar100n = DataPlugin(
    name="cifar100n",
    summary="CIFAR-100N: CIFAR-100 with labels that people gave, 40 % of them wrong",
    build=imported("reweight_data_noisy.readers.cifar_n:load_cifar100n"),
    config=PeoplesLabelsOptions,
    defaults=cifar100.defaults,
)
mnist = DataPlugin(
    name="mnist",
    summary="MNIST: 28x28 grey digits, 10 classes, 60,000 for training",
    build=imported("reweight_data_noisy.readers.mnist:load", "mnist"),
    config=FilesOptions,
    defaults={"model": "lenet", "meta_size": 1000, "epochs": 20, "lr": 0.01},
)
fashion_mnist = DataPlugin(
    name="fashion-mnist",
    summary="Fashion-MNIST: 28x28 grey images of clothes, 10 classes, 60,000 for training",
    build=imported("reweight_data_noisy.readers.mnist:load", "fashion-mnist"),
    config=FilesOptions,
    defaults={"model": "lenet", "meta_size": 1000, "epochs": 20, "lr": 0.01},
)
mnist_4v9 = DataPlugin(
    name="mnist-4v9",
    summary="L2RW's binary imbalance task: 5,000 images of nines and few fours, a clean set of 10",
    build=imported("reweight_data_noisy.readers.mnist:load_four_versus_nine"),
    config=FourVersusNineOptions,
    defaults={"model": "lenet", "steps": 8000, "lr": 1e-3, "schedule": "constant", "weight_decay": 0.0},
)
folder = DataPlugin(
    name="folder",
    summary="your own images: ROOT/train/CLASS/*, ROOT/test/CLASS/*, optionally ROOT/meta/CLASS/*",
    build=imported("reweight_data_noisy.readers.folder:load"),
    config=FolderOptions,
    fitted_defaults=imported("reweight_data_noisy.fitting:fitting_folder"),
)
csv = DataPlugin(
    name="csv",
    summary="your own data in CSV files: images by path (file,label), or numeric features",
    build=imported("reweight_data_noisy.readers.csv:load"),
    config=CsvOptions,
    fitted_defaults=imported("reweight_data_noisy.fitting:fitting_csv"),
)
clothing1m = DataPlugin(
    name="clothing1m",
    summary="Clothing1M: a million photographs of clothes, 14 classes, noisy labels, a clean set of 14,313",
    build=imported("reweight_data_noisy.readers.clothing1m:load"),
    config=LargeOptions,
    # GDW, section 4.3
    defaults={
        "model": "resnet18",
        "pretrained": True,
        "epochs": 5,
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "batch_size": 128,
    },
)
webvision_50 = DataPlugin(
    name="webvision-50",
    summary="WebVision 1.0, the first 50 classes: images and noisy labels from a search engine",
    build=imported("reweight_data_noisy.readers.webvision:load"),
    config=LargeOptions,
    defaults={"model": "resnet50", "batch_size": 128, "weight_decay": 1e-4},
)
inaturalist_2018 = DataPlugin(
    name="inaturalist-2018",
    summary="iNaturalist 2018: photographs of 8,142 species, a long tail by nature",
    build=imported("reweight_data_noisy.readers.inaturalist:load"),
    config=LargeOptions,
    defaults={"model": "resnet50", "batch_size": 128, "weight_decay": 1e-4},
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
    "hierarchical", "hierarchical:RATE turns a CIFAR-100 label with probability RATE into another of its superclass"
)
matrix = _noise(
    "matrix",
    "matrix:FILE draws each label from its class's row of a transition matrix in a text file",
    takes_file=True,
)
instance = _by_image(
    "instance",
    "instance:RATE turns each label, by its image, into another class: RATE is the mean probability (Xia et al.)",
)
model = _by_image(
    "model", "model:RATE gives exactly this share of the labels a weak model's class, where it errs or is least sure"
)
crowd = NoisePlugin(
    "crowd",
    "crowd:FILE draws each label from its example's row of annotators' shares in a text file",
    imported("reweight_data_noisy.instance_dependent:parse", "crowd"),
    takes_file=True,
    needs_mask=True,
)
