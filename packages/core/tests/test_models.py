import subprocess
import sys

import pytest
import torch
from torch import nn

from reweight_core import models
from reweight_core.errors import UserError
from reweight_core.models import torchvision_zoo
from reweight_core.models.build import build_model
from reweight_core.models.cifar_resnet import BasicBlock, CifarResNet
from reweight_core.models.small import MLP, LeNet
from reweight_core.models.wide_resnet import WideBlock, WideResNet

IMAGES = (1, 8, 8)


def count(model):
    return sum(p.numel() for p in model.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


class ModuleFolder:
    """A current folder of the test's own, whose module `own_net` is importable only from there."""

    def __init__(self, path):
        self._path = path

    def write(self, code):
        (self._path / "own_net.py").write_text(f"from torch import nn\n{code}\n")


@pytest.fixture
def own_net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    yield ModuleFolder(tmp_path)
    sys.modules.pop("own_net", None)


class TestRecords:
    def test_importing_them_imports_no_torch(self):
        code = "import sys, reweight_core.models; sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(
        ("record", "kind"),
        [
            (models.linear, MLP),
            (models.mlp, MLP),
            (models.lenet, LeNet),
            (models.resnet20, CifarResNet),
            (models.resnet32, CifarResNet),
            (models.resnet56, CifarResNet),
            (models.wrn_28_10, WideResNet),
        ],
    )
    def test_each_builds_its_network(self, record, kind):
        model = on_meta(lambda: record.build((3, 32, 32), 10))
        assert type(model) is kind
        with torch.device("meta"):
            assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


class TestParameterCounts:
    @pytest.mark.parametrize(("record", "depth"), [(models.resnet20, 20), (models.resnet32, 32), (models.resnet56, 56)])
    def test_cifar_resnet_has_the_layers_of_the_paper(self, record, depth):
        k = (depth - 2) // 6
        layers = [(3, 16)] + [(16, 16)] * 2 * k
        layers += [(16, 32)] + [(32, 32)] * (2 * k - 1)
        layers += [(32, 64)] + [(64, 64)] * (2 * k - 1)
        assert len(layers) + 1 == depth
        convolutions_and_norms = sum(9 * c_in * c_out + 2 * c_out for c_in, c_out in layers)
        model = on_meta(lambda: record.build((3, 32, 32), 10))
        assert count(model) == convolutions_and_norms + 64 * 10 + 10

    def test_resnet32_has_464154(self):
        assert count(on_meta(lambda: models.resnet32.build((3, 32, 32), 10))) == 464_154

    def test_wrn_28_10_has_36_5_million(self):
        assert round(count(on_meta(lambda: models.wrn_28_10.build((3, 32, 32), 10))) / 1e6, 1) == 36.5

    def test_lenet_flattens_28x28_to_1024(self):
        linear = next(m for m in LeNet((1, 28, 28), 10) if isinstance(m, nn.Linear))
        assert (linear.in_features, linear.out_features) == (1024, 100)

    def test_linear_is_one_layer(self):
        assert count(on_meta(lambda: models.linear.build((3, 32, 32), 10))) == 3 * 32 * 32 * 10 + 10

    def test_mlp_has_no_batch_norm_and_the_given_hidden_layers(self):
        assert count(MLP((1, 2, 3), 4, hidden=(5,))) == (6 * 5 + 5) + (5 * 4 + 4)
        assert not list(MLP(IMAGES, 10).buffers())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 7), (4, 4, 4)])
@pytest.mark.parametrize(
    "build",
    [
        MLP,
        LeNet,
        lambda shape, classes: CifarResNet(shape, classes, depth=8),
        lambda shape, classes: WideResNet(shape, classes, depth=10, width=1),
    ],
    ids=["mlp", "lenet", "cifar_resnet", "wide_resnet"],
)
def test_any_size_and_any_channels_give_logits(build, shape):
    assert build(shape, 7)(torch.rand(3, *shape)).shape == (3, 7)


class TestCifarResNet:
    def test_shortcut_subsamples_and_adds_zero_channels(self):
        block = BasicBlock(2, 5, stride=2)
        nn.init.zeros_(block.norm2.weight)
        x = torch.rand(3, 2, 7, 6)
        out = block(x)
        assert out.shape == (3, 5, 4, 3)
        assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
        assert not out[:, 2:].any()

    def test_block_of_one_shape_adds_its_input_before_the_last_relu(self):
        block = BasicBlock(4, 4, stride=1)
        nn.init.zeros_(block.norm2.weight)
        x = torch.randn(2, 4, 5, 5)
        assert torch.equal(block(x), x.relu())

    def test_weights_start_with_the_variance_of_kaiming(self):
        torch.manual_seed(0)
        conv = CifarResNet((3, 8, 8), 10, depth=8).blocks[-1].conv2
        assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)

    @pytest.mark.parametrize("depth", [2, 21])
    def test_other_depths_are_refused(self, depth):
        with pytest.raises(ValueError, match="6k"):
            CifarResNet(IMAGES, 10, depth)


class TestWideResNet:
    def test_identity_shortcut_passes_the_raw_input(self):
        block = WideBlock(4, 4, stride=1, dropout=0.0)
        nn.init.zeros_(block.conv2.weight)
        x = torch.randn(2, 4, 5, 5)
        assert torch.equal(block(x), x)

    @pytest.mark.parametrize(("channels", "stride"), [(6, 1), (4, 2)])
    def test_shortcut_that_changes_shape_is_a_convolution_of_the_activated_input(self, channels, stride):
        block = WideBlock(4, channels, stride, dropout=0.0)
        nn.init.zeros_(block.conv2.weight)
        x = torch.randn(2, 4, 5, 5)
        assert torch.equal(block(x), block.shortcut(block.norm1(x).relu()))

    def test_dropout_lies_before_the_second_convolution(self):
        block = WideBlock(4, 4, stride=1, dropout=1.0)
        x = torch.randn(2, 4, 5, 5)
        assert torch.equal(block(x), x)
        assert not torch.equal(block.eval()(x), x)

    @pytest.mark.parametrize("depth", [4, 27])
    def test_other_depths_are_refused(self, depth):
        with pytest.raises(ValueError, match="6k"):
            WideResNet(IMAGES, 10, depth, width=1)


class TestTorchvision:
    def test_names_are_classification_models(self):
        names = torchvision_zoo.names()
        assert {"resnet18", "vit_b_16"} <= set(names)
        assert not [name for name in names if "fasterrcnn" in name or "fcn" in name]

    def test_resnet18_is_fitted_to_channels_and_classes(self):
        model = build_model("resnet18", IMAGES, 7)
        original = on_meta(lambda: torchvision_zoo.build("resnet18", (3, 8, 8), 7)).conv1
        assert str(model.conv1) == str(original).replace("3, 64", "1, 64", 1)

    def test_three_channels_keep_the_first_convolution(self):
        torch.manual_seed(0)
        ours = torchvision_zoo.build("squeezenet1_1", (3, 32, 32), 2)
        torch.manual_seed(0)
        theirs = torchvision_zoo.torchvision.models.squeezenet1_1(num_classes=2)
        assert torch.equal(ours.features[0].weight, theirs.features[0].weight)

    def test_bias_of_the_first_convolution_stays(self):
        first = torchvision_zoo.build("squeezenet1_1", (2, 32, 32), 2).features[0]
        assert first.in_channels == 2
        assert first.bias is not None

    @pytest.mark.parametrize("size", [32, 64])
    def test_vit_is_fitted_to_the_size(self, size):
        with torch.device("meta"):
            model = torchvision_zoo.build("vit_b_32", (1, size, size), 5)
            assert model(torch.zeros(2, 1, size, size)).shape == (2, 5)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(("name", "size"), [("googlenet", 32), ("inception_v3", 96)])
    def test_auxiliary_outputs_are_off(self, name, size):
        with torch.device("meta"):
            model = torchvision_zoo.build(name, (1, size, size), 5)
            assert model.train()(torch.zeros(2, 1, size, size)).shape == (2, 5)

    def test_maxvit_is_fitted_to_the_size(self):
        with torch.device("meta"), pytest.raises(ValueError, match=r"Input size \(4, 4\)"):
            torchvision_zoo.build("maxvit_t", (3, 16, 16), 5)

    def test_images_that_a_model_cannot_be_built_for_are_a_user_error(self):
        with pytest.raises(UserError, match=r"'vit_b_16' cannot be built for images of shape 1x8x8 .*patch size"):
            build_model("vit_b_16", IMAGES, 10)


class TestBuildModel:
    def test_plugin_is_found_and_left_in_train_mode(self):
        model = build_model("resnet20", IMAGES, 10)
        assert isinstance(model, CifarResNet)
        assert all(module.training for module in model.modules())

    def test_trial_changes_neither_statistics_nor_random_state(self):
        torch.manual_seed(0)
        model = build_model("resnet20", IMAGES, 10)
        state = torch.get_rng_state()
        torch.manual_seed(0)
        untried = models.resnet20.build(IMAGES, 10)
        assert torch.equal(state, torch.get_rng_state())
        for name, value in untried.state_dict().items():
            assert torch.equal(model.state_dict()[name], value)

    def test_unknown_name_gets_the_nearest_of_plugins_and_torchvision(self):
        with pytest.raises(UserError, match="did you mean 'lenet'") as caught:
            build_model("lenett", IMAGES, 10)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match="did you mean 'vit_b_16'"):
            build_model("vit-b-16", IMAGES, 10)

    def test_images_too_small_for_a_model_are_a_user_error(self):
        with pytest.raises(UserError, match="model 'inception_v3' cannot process images of shape 1x8x8: ") as caught:
            build_model("inception_v3", IMAGES, 10)
        assert "\n" not in str(caught.value)


class TestOwnFactory:
    @pytest.mark.parametrize(
        "signature",
        [
            "def net(input_shape, num_classes):",
            "def net(num_classes, *, input_shape, width=3):",
            "def net(num_classes):",
            "def net(width=3, num_classes=10):",
            "def net(**settings):\n    num_classes = settings['num_classes']; settings['input_shape']",
        ],
    )
    def test_gets_the_keywords_that_it_accepts(self, own_net, signature):
        own_net.write(f"{signature}\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))")
        assert build_model("own_net:net", IMAGES, 10)[1].out_features == 10

    def test_may_be_a_class_of_an_installed_package(self):
        assert isinstance(build_model("reweight_core.models.small:LeNet", IMAGES, 10), LeNet)

    def test_without_keywords(self, own_net):
        own_net.write("def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))")
        assert isinstance(build_model("own_net:net", IMAGES, 3), nn.Sequential)

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("import missing_module", "'own_net:net': cannot import 'own_net': .*missing_module"),
            ("def net(:", "'own_net:net': cannot import 'own_net': SyntaxError"),
            ("def nets(): pass", r"module 'own_net' has no 'net' \(did you mean 'nets'\?\)"),
            ("net = 3", "cannot be built for images of shape 1x8x8 and 10 classes: TypeError"),
            ("def net(width): pass", "cannot be built .*width"),
            ("def net(): return 3", "'own_net:net' is of type int, not a torch.nn.Module"),
            (
                "def net(): raise ValueError('first line\\nsecond line')",
                "cannot be built .*ValueError: first line$",
            ),
            ("def net(): return nn.Linear(5, 10)", "'own_net:net' cannot process images of shape 1x8x8: "),
            ("def net(): return nn.Conv2d(1, 1, 1)", r"\(2, 10\), but returns \(2, 1, 8, 8\)"),
            (
                "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))",
                r"logits of shape \(2, 10\), but returns \(2, 9\)",
            ),
            (
                "class net(nn.Module):\n"
                "    def __init__(self): super().__init__()\n"
                "    def forward(self, x): return 'x'",
                r"logits of shape \(2, 10\), but returns str",
            ),
            (
                "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)",
                "'own_net:net' has no trainable parameters",
            ),
        ],
    )
    def test_each_mistake_is_a_user_error_of_one_line(self, own_net, code, message):
        own_net.write(code)
        with pytest.raises(UserError, match=message) as caught:
            build_model("own_net:net", IMAGES, 10)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", [":net", "no_such_module:net", "os:"])
    def test_half_a_name_is_a_user_error(self, name):
        with pytest.raises(UserError, match=f"model '{name}'"):
            build_model(name, IMAGES, 10)
