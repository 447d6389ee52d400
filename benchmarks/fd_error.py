"""The error of ``fd`` on six architectures, at the start and after 500 steps of plain training.

python benchmarks/fd_error.py --steps 500
"""

from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from reweight_core.data.batch import Batch
from reweight_core.engine.lookahead import STRATEGIES, Strategy, finite_difference
from reweight_core.engine.passes import Passes
from reweight_core.engine.step import Step
from reweight_core.engine.virtual_step import VirtualSGD
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.models.small import MLP, LeNet
from reweight_core.models.wide_resnet import WideResNet
from reweight_core.training.auto import LENGTHS, relative_error

SHAPE, CLASSES, N, LR = (3, 16, 16), 10, 50, 0.05

ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(SHAPE, CLASSES),
    "lenet": lambda: LeNet(SHAPE, CLASSES),
    "resnet32": lambda: CifarResNet(SHAPE, CLASSES, 32),
    "wide resnet 10-2, dropout 0.3": lambda: WideResNet(SHAPE, CLASSES, depth=10, width=2, dropout=0.3),
    "torchvision resnet18": lambda: resnet18(num_classes=CLASSES),
    "vision transformer, 2 layers": lambda: VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=CLASSES),
}


class Task:
    """Images of random class patterns in noise: something to learn without a download."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.patterns = torch.randn(CLASSES, *SHAPE, generator=self.generator)

    def batch(self, wrong: float) -> Batch:
        """Draw N examples, a share of them with random labels."""
        labels = torch.randint(CLASSES, (N,), generator=self.generator)
        images = 0.3 * self.patterns[labels] + torch.randn(N, *SHAPE, generator=self.generator)
        redrawn = torch.rand(N, generator=self.generator) < wrong
        random = torch.randint(CLASSES, (N,), generator=self.generator)
        return Batch(torch.arange(N), images, torch.where(redrawn, random, labels))


def gradient(model: nn.Module, noisy: Batch, clean: Batch, strategy: Strategy) -> torch.Tensor:
    """Return the derivative of the meta loss with respect to the example weights at 1, (N,)."""
    passes = Passes(model, torch.Generator().manual_seed(0))
    lr = torch.tensor(LR)
    step = Step(noisy, passes, lr, strategy, VirtualSGD(lr), lambda: clean)
    weights = torch.ones(N, requires_grad=True)
    (found,) = torch.autograd.grad(step.meta_loss(weights[:, None] * step.D), weights)
    return found


def errors(model: nn.Module, task: Task) -> str:
    """Return the relative errors of the derivative under ``fd`` at every length, as cells of a table."""
    noisy, clean = task.batch(0.4), task.batch(0)
    exact = gradient(model, noisy, clean, STRATEGIES["jvp"])
    found = [relative_error(gradient(model, noisy, clean, finite_difference(h)), exact) for h in LENGTHS]
    return " | ".join(f"{100 * error:.2f} %" for error in found)


@click.command()
@click.option("--steps", default=500, show_default=True, help="Steps of plain training between the two measurements.")
def main(steps: int) -> None:
    """Print the table as Markdown."""
    titles = " | ".join(f"{when} {h:g}" for when in ("start,", "later,") for h in LENGTHS)
    click.echo(f"| network | {titles} |\n| --- |{' --- |' * 2 * len(LENGTHS)}")
    for name, make in ARCHITECTURES.items():
        torch.manual_seed(0)
        task, model = Task(), make().train()
        at_start = errors(model, task)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
        for _ in range(steps):
            batch = task.batch(0.4)
            optimizer.zero_grad()
            F.cross_entropy(model(batch.inputs), batch.labels).backward()
            optimizer.step()
        click.echo(f"| {name} | {at_start} | {errors(model, task)} |")


if __name__ == "__main__":
    main()
