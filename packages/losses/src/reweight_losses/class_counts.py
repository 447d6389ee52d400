"""How many examples each class has, and the class weights that follow from it."""

import math

import torch
from torch import Tensor

from reweight_core import Context


def class_counts(context: Context) -> Tensor:
    """Return N_c, the number of training examples that are labelled with each class, double precision (C,), on the CPU.

    A class without examples counts as the smallest that has some: the formulas have no finite value for none, and no
    other class is to weigh less because of it.
    """
    counts = torch.bincount(context.train.labels.cpu(), minlength=context.num_classes).double()
    return counts.clamp(min=counts[counts > 0].min())


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """Return w_c = (1 - beta) / (1 - beta^N_c), scaled so that their mean is 1 (C,) (Cui et al., CVPR 2019, section 4).

    Args:
        counts: N_c, (C,).
        beta: 0 for equal weights; 1 for the limit of inverse frequency, 1 / N_c.
    """
    if beta == 1:
        w = 1 / counts
    elif beta == 0:
        w = torch.ones_like(counts)
    else:
        # 1 - beta^N as it stands loses its digits where beta is near 1
        w = -1 / torch.expm1(counts * math.log(beta))
    return w / w.mean()
