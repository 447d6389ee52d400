"""The tables of the FSR paper (Zhang & Pfister, ICCV 2021), for ``reweight reproduce``."""

from reweight_core import TablePlugin

PAPER = "Zhang & Pfister, FSR, ICCV 2021"

cifar10_uniform = TablePlugin.beside(
    __file__,
    "fsr-cifar10-uniform",
    "CIFAR-10 with uniform noise: fsr with ResNet-32, and quoted figures of others",
    f"{PAPER}, table 1",
)
cifar100_uniform = TablePlugin.beside(
    __file__,
    "fsr-cifar100-uniform",
    "CIFAR-100 with uniform noise: fsr with ResNet-32, and quoted figures of others",
    f"{PAPER}, table 2",
)
asymmetric = TablePlugin.beside(
    __file__,
    "fsr-asymmetric",
    "CIFAR-10 with asymmetric noise: fsr with ResNet-32, and quoted figures of others",
    f"{PAPER}, table 3",
)
long_tail = TablePlugin.beside(
    __file__,
    "fsr-long-tail",
    "long-tailed CIFAR-10 and CIFAR-100: fsr, deferred or not, and quoted figures of others",
    f"{PAPER}, table 6",
)
long_tail_noise = TablePlugin.beside(
    __file__,
    "fsr-long-tail-noise",
    "long-tailed CIFAR-10 with uniform noise: fsr, and quoted figures of CRUST",
    f"{PAPER}, table 7",
)
components = TablePlugin.beside(
    __file__,
    "fsr-components",
    "CIFAR-10 with 20 % uniform noise, with and without mixup and relabel",
    f"{PAPER}, figure 6",
)
