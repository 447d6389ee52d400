"""The tables of the L2RW paper (Ren et al., ICML 2018), for ``reweight reproduce``."""

from pathlib import Path

from reweight_core import TablePlugin


def _table(name: str, summary: str, table: str) -> TablePlugin:
    path = Path(__file__).parent / "tables" / f"{name}.toml"
    return TablePlugin(name=name, summary=summary, source=f"Ren et al., L2RW, ICML 2018, {table}", path=path)


uniform = _table(
    "l2rw-uniform", "CIFAR-10 and CIFAR-100 with 40 % uniform noise: erm, random, clean-only, l2rw", "table 1"
)
background = _table(
    "l2rw-background", "CIFAR-10 and CIFAR-100, 40 % turned into one class: erm, random, clean-only, l2rw", "table 2"
)
mnist = _table("l2rw-mnist", "MNIST, few fours against many nines: erm, random, l2rw; no published numbers", "figure 2")
