"""A last layer that compares directions: logits are cosines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 30.0
"""What the cosines are multiplied by, as in LDAM's experiments."""


class CosineHead(nn.Module):
    """Logits that depend on directions alone: features z (n, d) to (n, C).

        l_c = 30 cos(z, w_c) = 30 <z, w_c> / (|z| |w_c|)

    There is no bias. LDAM's margins are defined for such logits (Cao et al., NeurIPS 2019, section 3.2); the layer
    itself is NormFace's (Wang et al., ACM Multimedia 2017). The class weights w_c start with random directions and
    length 1. A feature of zeros has logits of 0.

    Args:
        in_features: d.
        out_features: C.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(out_features, in_features)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits."""
        return SCALE * F.linear(F.normalize(features), F.normalize(self.weight))
