"""The tables of the GDW paper (Chen et al., NeurIPS 2021), for ``reweight reproduce``."""

from pathlib import Path

from reweight_core import TablePlugin


def _table(name: str, summary: str, table: str) -> TablePlugin:
    path = Path(__file__).parent / "tables" / f"{name}.toml"
    return TablePlugin(name=name, summary=summary, source=f"Chen et al., GDW, NeurIPS 2021, {table}", path=path)


uniform = _table("gdw-uniform", "CIFAR-10 and CIFAR-100 with uniform noise: erm, l2rw, mwnet, gdw", "table 2")
flip = _table("gdw-flip", "CIFAR-10 and CIFAR-100 with flip noise: erm, l2rw, mwnet, gdw", "table 3")
long_tail = _table("gdw-long-tail", "long-tailed CIFAR-10 and CIFAR-100: erm, l2rw, mwnet, gdw", "table 4")
