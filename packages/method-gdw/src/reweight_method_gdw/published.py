"""The tables of the GDW paper (Chen et al., NeurIPS 2021), for ``reweight reproduce``."""

from reweight_core import TablePlugin

PAPER = "Chen et al., GDW, NeurIPS 2021"

uniform = TablePlugin.beside(
    __file__, "gdw-uniform", "CIFAR-10 and CIFAR-100 with uniform noise: erm, l2rw, mwnet, gdw", f"{PAPER}, table 2"
)
flip = TablePlugin.beside(
    __file__, "gdw-flip", "CIFAR-10 and CIFAR-100 with flip noise: erm, l2rw, mwnet, gdw", f"{PAPER}, table 3"
)
long_tail = TablePlugin.beside(
    __file__, "gdw-long-tail", "long-tailed CIFAR-10 and CIFAR-100: erm, l2rw, mwnet, gdw", f"{PAPER}, table 4"
)
