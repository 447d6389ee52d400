"""The built-in networks, as plugin records; importing this package imports no torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from reweight_core.plugins.records import ModelPlugin

if TYPE_CHECKING:
    from torch import nn


def _mlp(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    from reweight_core.models.small import MLP

    return MLP(input_shape, num_classes)


def _lenet(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    from reweight_core.models.small import LeNet

    return LeNet(input_shape, num_classes)


def _cifar_resnet(depth: int, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    from reweight_core.models.cifar_resnet import CifarResNet

    return CifarResNet(input_shape, num_classes, depth)


def _wrn_28_10(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    from reweight_core.models.wide_resnet import WideResNet

    return WideResNet(input_shape, num_classes, depth=28, width=10)


mlp = ModelPlugin(name="mlp", summary="perceptron with two hidden layers of 256 units, no BatchNorm", build=_mlp)
lenet = ModelPlugin(
    name="lenet", summary="three convolutions, two linear layers: L2RW's network for MNIST", build=_lenet
)
resnet20 = ModelPlugin(
    name="resnet20", summary="CIFAR ResNet of 20 layers (He et al., 2016)", build=partial(_cifar_resnet, 20)
)
resnet32 = ModelPlugin(
    name="resnet32", summary="CIFAR ResNet of 32 layers (He et al., 2016)", build=partial(_cifar_resnet, 32)
)
resnet56 = ModelPlugin(
    name="resnet56", summary="CIFAR ResNet of 56 layers (He et al., 2016)", build=partial(_cifar_resnet, 56)
)
wrn_28_10 = ModelPlugin(
    name="wrn-28-10",
    summary="wide ResNet of 28 layers, ten times as wide (Zagoruyko & Komodakis, 2016)",
    build=_wrn_28_10,
)
