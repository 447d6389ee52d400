"""Fine-tuning on the trusted examples after any method, a baseline of Ren et al. (2018) and Chen et al. (2021)."""

from collections.abc import Generator, Sequence

from reweight_core import Context, Stage, hookimpl
from reweight_method_trusted.options import FineTuneConfig

STEPS, RATE = 1 / 16, 1 / 10
"""Length and rate by default, as shares of the run's: the length is that of L2RW's code, 5000 of 80,000 steps."""


class FineTune:
    """Adds a last stage of plain training on the trusted examples, in which no plugin weights anything."""

    def __init__(self, config: FineTuneConfig, context: Context):
        self.config, self.run_steps = config, context.steps

    @hookimpl(wrapper=True)
    def plan_stages(self, stage: Stage) -> Generator[None, Sequence[Stage], list[Stage]]:
        """The run's stages and the fine-tuning, at a constant rate."""
        stages = yield
        steps = self.config.steps or max(1, round(STEPS * (self.run_steps or 0)))
        lr = RATE * stages[-1].lr if self.config.lr is None else self.config.lr
        last = Stage("fine-tune", 1, lr, source="meta", steps=steps, schedule=lambda epochs: 1.0, plain=True)
        return [*stages, last]
