"""The tables of the GDW paper (Chen et al., NeurIPS 2021), for ``reweight reproduce``."""

from reweight_core import TablePlugin

PAPER = "Chen et al., GDW, NeurIPS 2021"

uniform = TablePlugin.beside(
    __file__, "gdw-uniform", "CIFAR-10 and CIFAR-100 with uniform noise: gdw, erm and eight others", f"{PAPER}, table 2"
)
flip = TablePlugin.beside(
    __file__, "gdw-flip", "CIFAR-10 and CIFAR-100 with flip noise: gdw, erm and eight others", f"{PAPER}, table 3"
)
long_tail = TablePlugin.beside(
    __file__, "gdw-long-tail", "long-tailed CIFAR-10 and CIFAR-100: gdw, erm and six others", f"{PAPER}, table 4"
)
clothing1m = TablePlugin.beside(
    __file__, "gdw-clothing1m", "Clothing1M, pre-trained ResNet-18: gdw, erm and eight others", f"{PAPER}, table 5"
)
