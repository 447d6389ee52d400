"""The tables of the L2RW paper (Ren et al., ICML 2018), for ``reweight reproduce``."""

from reweight_core import TablePlugin

PAPER = "Ren et al., L2RW, ICML 2018"

uniform = TablePlugin.beside(
    __file__,
    "l2rw-uniform",
    "CIFAR-10 and CIFAR-100 with 40 % uniform noise: l2rw, erm, random, clean-only and six others",
    f"{PAPER}, table 1",
)
background = TablePlugin.beside(
    __file__,
    "l2rw-background",
    "CIFAR-10 and CIFAR-100, 40 % turned into one class: l2rw, erm, random, weighted, clean-only and seven others",
    f"{PAPER}, table 2",
)
mnist = TablePlugin.beside(
    __file__,
    "l2rw-mnist",
    "MNIST, few fours against many nines: l2rw, erm, random and three others; no published numbers",
    f"{PAPER}, figure 2",
)
