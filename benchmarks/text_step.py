"""What a step of a `Reweighter` costs on a small text classifier, against a plain loop, and how exact it is.

python benchmarks/text_step.py
"""

import copy
import statistics
import time
import warnings

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reweight_core import Reweighter

VOCABULARY, LENGTH, CLASSES = 5000, 64, 10
METHODS = ("erm", "l2rw", "mwnet", "gdw")


class Block(nn.Module):
    """Attention and a perceptron, each after a LayerNorm: (n, length, width) to the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x after both."""
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Text(nn.Module):
    """A transformer encoder with a linear layer on the mean of its tokens."""

    def __init__(self, width: int, layers: int, heads: int = 4):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Parameter(torch.randn(LENGTH, width) / 10)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return the logits (n, C) under that name."""
        x = self.tokens(input_ids) + self.places
        for block in self.blocks:
            x = block(x, attention_mask)
        weights = attention_mask[..., None].to(x.dtype)
        return {"logits": self.head((self.norm(x) * weights).sum(1) / weights.sum(1))}


def texts(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return n random texts of 16 to 64 tokens, padded, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(16, LENGTH + 1, (n, 1), generator=generator)
    ids = torch.randint(1, VOCABULARY, (n, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < lengths
    return {"input_ids": ids * mask, "attention_mask": mask}, torch.randint(CLASSES, (n,), generator=generator)


@click.command()
@click.option("--width", default=128, show_default=True)
@click.option("--layers", default=4, show_default=True)
@click.option("--size", default=32, show_default=True, help="Examples in a training batch, and in a meta batch.")
@click.option("--repetitions", default=10, show_default=True)
def main(width: int, layers: int, size: int, repetitions: int) -> None:
    """Print milliseconds a step, medians of interleaved ones, and the error of the weights' gradient."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    initial = Text(width, layers)
    (inputs, labels), meta = texts(size, 1), texts(size, 2)
    plain = copy.deepcopy(initial)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)

    def plain_step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(plain(**inputs)["logits"], labels).backward()
        optimizer.step()

    steps, gradients = {("plain", "-"): plain_step}, {}
    for method in METHODS:
        for lookahead in ("-",) if method == "erm" else ("jvp", "fd", "double"):
            model = copy.deepcopy(initial)
            reweighter = Reweighter(
                method,
                model,
                torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
                num_classes=CLASSES,
                train_size=size,
                meta=[meta],
                **({} if method == "erm" else {"lookahead": lookahead}),
            )
            reweighter(inputs, labels, range(size)).backward()
            gradients[method, lookahead] = torch.cat([p.grad.flatten() for p in model.parameters()])
            steps[method, lookahead] = lambda r=reweighter: r.step(inputs, labels, range(size))
    times: dict[tuple[str, str], list[float]] = {name: [] for name in steps}
    for _ in range(repetitions + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    base = statistics.median(times["plain", "-"][1:])
    click.echo("| method | look-ahead | ms a step | x plain | error of the update |\n| --- | --- | --- | --- | --- |")
    for (method, lookahead), taken in times.items():
        median, error = statistics.median(taken[1:]), "-"
        if (method, "double") in gradients and lookahead != "double":
            exact = gradients[method, "double"]
            error = f"{((gradients[method, lookahead] - exact).norm() / exact.norm()).item():.1e}"
        click.echo(f"| {method} | {lookahead} | {1000 * median:.0f} | {median / base:.2f} | {error} |")


if __name__ == "__main__":
    main()
