"""Meta-Weight-Net: Algorithm 1 of Shu et al., "Learning an Explicit Mapping For Sample Weighting" (NeurIPS 2019)."""

import torch
from torch import Tensor

from reweight_core import Context, Step, WeightingOptions, hookimpl


class MWNet:
    """Weights each example by V(loss; phi), where phi learns from the clean batch."""

    def __init__(self, config: WeightingOptions, context: Context):
        self.V = config.build(context)
        # all that it carries from step to step
        self.state_dict, self.load_state_dict = self.V.state_dict, self.V.load_state_dict

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Lines 5-7 of Algorithm 1: weights (n,) by the weighting network after its own step."""
        if step.looks_ahead:
            # line 5: the virtual step, with weights that depend on phi
            v = self.V(step.losses)
            meta_loss = step.meta_loss(v[:, None] * step.D)
            # line 6: phi follows the clean loss
            self.V.descend(torch.autograd.grad(meta_loss, self.V.phi))
        # line 7: the real step takes the new phi
        return self.V(step.losses).detach()
