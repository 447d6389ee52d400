"""The baselines that L2RW is compared with (Ren et al. 2018, section 4)."""

import attrs
import torch
from torch import Tensor

from reweight_core import Context, Stage, Step, UserError, hookimpl
from reweight_method_l2rw.l2rw import rectify_and_normalise
from reweight_method_l2rw.options import WeightedConfig


class RandomWeights:
    """Rectified standard-normal weights, normalised to sum 1 (Eq. 16)."""

    def __init__(self, config: object, context: Context):
        self._generator = torch.Generator(context.device).manual_seed(context.seed)

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Random weights on the scale where 1 is plain training: n w_i, shape (n,)."""
        losses = step.losses
        z = torch.randn(step.n, generator=self._generator, dtype=losses.dtype, device=losses.device)
        return step.part(step.n * rectify_and_normalise(z))

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._generator.set_state(state["generator"])


class Weighted:
    """The share of right labels in each observed class, under background noise that is known (Table 2)."""

    def __init__(self, config: WeightedConfig, context: Context):
        C, r = context.num_classes, config.rate
        if config.background is not None and config.background >= C:
            raise UserError(f"--background {config.background}: the classes are 0 to {C - 1}")
        counts = torch.bincount(context.train.labels, minlength=C)
        background = counts.argmax() if config.background is None else config.background
        self.clean_share = torch.ones(C, dtype=context.dtype, device=context.device)
        # of the labels of the background, r were turned into it and (1 - r) / C are left of its own
        self.clean_share[background] = (1 / C) / (r + (1 - r) / C)

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """The shares, normalised to mean 1 over the batch, (n,)."""
        w = self.clean_share.index_select(0, step.labels).to(step.losses.dtype)
        return step.n * w / step.total(w.sum())


class CleanOnly:
    """Plain training on the clean meta set; the noisy training set is not used."""

    def __init__(self, config: object, context: Context):
        pass

    @hookimpl
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """The same number of steps and the same schedule, on the meta set."""
        return [attrs.evolve(stage, name="clean", source="meta")]
