"""The tables of the FSR paper (Zhang & Pfister, ICCV 2021), for ``reweight reproduce``."""

from pathlib import Path

from reweight_core import TablePlugin


def _table(name: str, summary: str, table: str) -> TablePlugin:
    path = Path(__file__).parent / "tables" / f"{name}.toml"
    return TablePlugin(name=name, summary=summary, source=f"Zhang & Pfister, FSR, ICCV 2021, {table}", path=path)


cifar10_uniform = _table("fsr-cifar10-uniform", "CIFAR-10 with uniform noise, ResNet-32", "table 1")
cifar100_uniform = _table("fsr-cifar100-uniform", "CIFAR-100 with uniform noise, ResNet-32", "table 2")
asymmetric = _table("fsr-asymmetric", "CIFAR-10 with asymmetric noise, ResNet-32", "table 3")
long_tail = _table("fsr-long-tail", "long-tailed CIFAR-10 and CIFAR-100, weights deferred or not", "table 6")
long_tail_noise = _table("fsr-long-tail-noise", "long-tailed CIFAR-10 with uniform noise", "table 7")
components = _table(
    "fsr-components", "CIFAR-10 with 20 % uniform noise, with and without mixup and relabel", "figure 6"
)
