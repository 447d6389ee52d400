"""The built-in networks, as plugin records; importing this package imports no torch."""

from reweight_core.plugins.imported import imported
from reweight_core.plugins.records import ModelPlugin

linear = ModelPlugin(
    name="linear",
    summary="one linear layer on the flattened input: logistic regression",
    build=imported("reweight_core.models.small:MLP", hidden=()),
)
mlp = ModelPlugin(
    name="mlp",
    summary="perceptron with two hidden layers of 256 units, no BatchNorm",
    build=imported("reweight_core.models.small:MLP"),
)
lenet = ModelPlugin(
    name="lenet",
    summary="three convolutions, two linear layers: L2RW's network for MNIST",
    build=imported("reweight_core.models.small:LeNet"),
)
resnet8 = ModelPlugin(
    name="resnet8",
    summary="CIFAR ResNet of 8 layers, for few images (He et al., 2016)",
    build=imported("reweight_core.models.cifar_resnet:CifarResNet", depth=8),
)
resnet20 = ModelPlugin(
    name="resnet20",
    summary="CIFAR ResNet of 20 layers (He et al., 2016)",
    build=imported("reweight_core.models.cifar_resnet:CifarResNet", depth=20),
)
resnet32 = ModelPlugin(
    name="resnet32",
    summary="CIFAR ResNet of 32 layers (He et al., 2016)",
    build=imported("reweight_core.models.cifar_resnet:CifarResNet", depth=32),
)
resnet56 = ModelPlugin(
    name="resnet56",
    summary="CIFAR ResNet of 56 layers (He et al., 2016)",
    build=imported("reweight_core.models.cifar_resnet:CifarResNet", depth=56),
)
wrn_28_10 = ModelPlugin(
    name="wrn-28-10",
    summary="wide ResNet of 28 layers, ten times as wide (Zagoruyko & Komodakis, 2016)",
    build=imported("reweight_core.models.wide_resnet:WideResNet", depth=28, width=10),
)
