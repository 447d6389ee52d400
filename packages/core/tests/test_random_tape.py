import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from reweight_core.engine.random_tape import RandomTape


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def tape(generator):
    return RandomTape(generator)


class Own(nn.Module):
    """Noise that a network draws by itself."""

    def __init__(self, draw):
        super().__init__()
        self._draw = draw

    def forward(self, x):
        return x + self._draw(x)


def moved(generator, before):
    return not torch.equal(generator.get_state(), before)


IMAGES = torch.ones(6, 4, 5, 5)
LAYERS = {
    "dropout": (nn.Dropout(0.4), IMAGES),
    "dropout inplace": (nn.Dropout(0.4, inplace=True), IMAGES),
    "dropout1d": (nn.Dropout1d(0.4), torch.ones(6, 4, 5)),
    "dropout2d": (nn.Dropout2d(0.4), IMAGES),
    "dropout3d": (nn.Dropout3d(0.4), torch.ones(6, 4, 3, 2, 2)),
    "stochastic depth row": (torchvision.ops.StochasticDepth(0.4, "row"), IMAGES),
    "stochastic depth batch": (torchvision.ops.StochasticDepth(0.4, "batch"), IMAGES),
    "bernoulli": (Own(lambda x: torch.bernoulli(x / 2)), IMAGES),
    "bernoulli_": (Own(lambda x: torch.empty_like(x).bernoulli_(0.3)), IMAGES),
    "uniform_": (Own(lambda x: torch.empty_like(x).uniform_(-1, 1)), IMAGES),
    "rand": (Own(lambda x: torch.rand(x.shape)), IMAGES),
    "rand_like": (Own(torch.rand_like), IMAGES),
    "randn": (Own(lambda x: torch.randn(x.shape)), IMAGES),
    "randn_like": (Own(torch.randn_like), IMAGES),
    "randint_like": (Own(lambda x: torch.randint_like(x, 2, high=2**20)), IMAGES),
}
every_layer = pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)


@every_layer
class TestEveryDraw:
    def test_replay_repeats_what_was_recorded(self, tape, layer, x):
        with tape.record():
            recorded = layer(x.clone())
        for _ in range(2):
            with tape.replay():
                assert torch.equal(layer(x.clone()), recorded)

    def test_recordings_differ_from_each_other(self, tape, layer, x):
        # one draw for the whole batch is the same again with probability 0.6: hence so many recordings
        with tape.record():
            first = layer(x.clone())
        others = []
        for _ in range(40):
            with tape.record():
                others.append(layer(x.clone()))

        assert any(not torch.equal(first, other) for other in others)

    def test_the_same_state_gives_the_same_draws(self, layer, x):
        outputs = []
        for _ in range(2):
            with RandomTape(torch.Generator().manual_seed(8)).record():
                outputs.append(layer(x.clone()))

        assert torch.equal(*outputs)

    def test_the_global_generator_is_neither_used_nor_of_influence(self, generator, tape, layer, x):
        torch.manual_seed(1)
        before, own = torch.get_rng_state(), generator.get_state()
        with tape.record():
            first = layer(x.clone())
        with tape.fresh():
            layer(x.clone())
        with tape.replay():
            layer(x.clone())
        assert torch.equal(torch.get_rng_state(), before)
        assert moved(generator, own)

        torch.manual_seed(2)
        generator.set_state(own)
        with tape.record():
            assert torch.equal(layer(x.clone()), first)

    def test_replay_does_not_draw(self, generator, tape, layer, x):
        with tape.record():
            layer(x.clone())
        state = generator.get_state()
        with tape.replay():
            layer(x.clone())

        assert not moved(generator, state)

    def test_fresh_draws_are_new_and_leave_the_recording_alone(self, generator, tape, layer, x):
        with tape.record():
            recorded = layer(x.clone())
        state = generator.get_state()
        with tape.fresh():
            layer(x.clone())
        assert moved(generator, state)

        with tape.replay():
            assert torch.equal(layer(x.clone()), recorded)


class TestDropout:
    # name, input of ones, shape of a mask with one entry for each draw
    SHAPES = (
        (F.dropout, (20, 50, 4, 5), (20, 50, 4, 5)),
        (F.dropout1d, (100, 200, 3), (100, 200, 1)),
        (F.dropout2d, (100, 200, 2, 2), (100, 200, 1, 1)),
        (F.dropout3d, (100, 200, 2, 1, 2), (100, 200, 1, 1, 1)),
    )

    @pytest.mark.parametrize(("dropout", "shape", "own"), SHAPES)
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
    def test_each_entry_is_kept_with_probability_1_minus_p_and_scaled_up(self, tape, dropout, shape, own, p):
        with tape.record():
            y = dropout(torch.ones(shape, dtype=torch.float64), p)

        mask = y[tuple(slice(size) for size in own)]
        assert torch.equal(y, mask.expand(shape))
        kept = mask != 0
        torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - p)), rtol=1e-14, atol=0)
        deviation = (p * (1 - p) / mask.numel()) ** 0.5
        assert abs(kept.double().mean().item() - (1 - p)) < 4.5 * deviation

    @pytest.mark.parametrize("dropout", [F.dropout, F.dropout2d])
    def test_neighbouring_entries_are_independent(self, tape, dropout):
        with tape.record():
            y = dropout(torch.ones(100, 200, 1, 1), 0.5)
        kept = (y != 0).double()[:, :, 0, 0]

        for joint in (kept[:, 1:] * kept[:, :-1], kept[1:] * kept[:-1]):
            assert abs(joint.mean().item() - 0.25) < 4.5 * (0.1875 / joint.numel()) ** 0.5

    @pytest.mark.parametrize("p", [0.3, 0.7])
    def test_stochastic_depth_keeps_whole_examples(self, tape, p):
        with tape.record():
            y = torchvision.ops.stochastic_depth(torch.ones(20_000, 2, 1, 1, dtype=torch.float64), p, "row")

        kept = (y != 0).double()
        assert torch.equal(kept[:, 0], kept[:, 1])
        torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / (1 - p)], dtype=torch.float64))
        assert abs(kept[:, 0].mean().item() - (1 - p)) < 4.5 * (p * (1 - p) / 20_000) ** 0.5

    def test_dropping_everything_gives_zeros_and_a_zero_gradient(self, tape):
        x = torch.ones(3, 4, requires_grad=True)
        with tape.record():
            y = F.dropout(x, p=1.0)
        y.sum().backward()

        assert y.eq(0).all()
        assert x.grad.eq(0).all()

    @pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.Dropout2d(0.0), nn.Dropout(0.5).eval()])
    def test_dropping_nothing_draws_nothing(self, generator, tape, layer):
        state = generator.get_state()
        for mode in (tape.record, tape.replay, tape.fresh):
            with mode():
                assert torch.equal(layer(IMAGES), IMAGES)

        assert not moved(generator, state)

    def test_a_network_in_eval_mode_draws_nothing(self, generator, tape):
        net = nn.Sequential(nn.Dropout2d(0.5), torchvision.ops.StochasticDepth(0.5, "row"), nn.Dropout(0.5)).eval()
        state = generator.get_state()
        with tape.record():
            assert torch.equal(net(IMAGES), IMAGES)

        assert not moved(generator, state)

    def test_inplace_dropout_changes_its_input(self, tape):
        x = torch.ones(50, 4)
        with tape.record():
            y = F.dropout(x, 0.5, inplace=True)

        assert y.data_ptr() == x.data_ptr()
        assert set(x.unique().tolist()) == {0.0, 2.0}

    @pytest.mark.parametrize("inplace", [False, True])
    def test_the_gradient_is_the_mask(self, tape, inplace):
        x = torch.full((50, 4), 3.0, requires_grad=True)
        with tape.record():
            y = F.dropout(x * 1, 0.5, inplace=inplace)
        y.sum().backward()

        assert torch.equal(x.grad, y.detach() / 3)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_the_number_type_stays(self, tape, dtype):
        with tape.record():
            assert F.dropout(torch.ones(5, dtype=dtype)).dtype == dtype


class TestRecordings:
    @staticmethod
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Dropout2d(0.3),
            nn.ReLU(),
            nn.Dropout(0.2, inplace=True),
            torchvision.ops.StochasticDepth(0.3, "row"),
            nn.Flatten(),
            nn.Linear(64, 5),
            nn.Dropout(0.5),
        )

    def test_a_network_gives_the_same_output_when_its_draws_are_replayed(self, tape):
        net, x = self.network(), torch.rand(7, 3, 6, 6)
        with tape.record():
            recorded = net(x)
        with tape.fresh():
            fresh = net(x)
        with tape.replay():
            replayed = net(x)

        assert torch.equal(replayed, recorded)
        assert not torch.equal(fresh, recorded)

    def test_a_new_recording_takes_the_place_of_the_last(self, tape):
        net, x = self.network(), torch.rand(7, 3, 6, 6)
        with tape.record():
            net(x)
        with tape.record():
            second = net(x)
        with tape.replay():
            assert torch.equal(net(x), second)

    def test_what_the_network_does_to_its_draws_does_not_change_the_recording(self, tape):
        def noise():
            return torch.rand(5).mul_(0).add_(7)

        with tape.record():
            noise()
        with tape.replay():
            drawn = torch.rand(5)

        assert not drawn.eq(7).any()
        assert drawn.unique().numel() == 5

    def test_changing_replayed_draws_leaves_a_later_replay_alone(self, tape):
        with tape.record():
            recorded = torch.rand(5).clone()
        with tape.replay():
            torch.rand(5).zero_()
        with tape.replay():
            assert torch.equal(torch.rand(5), recorded)

    def test_outside_of_a_pass_draws_are_those_of_torch(self, generator, tape):
        with tape.record():
            F.dropout(torch.ones(5))
        state = generator.get_state()
        torch.manual_seed(4)
        expected = torch.rand(3)
        torch.manual_seed(4)
        assert torch.equal(torch.rand(3), expected)

        assert not moved(generator, state)


class TestDrawsInTheShapeOfAnotherTensor:
    """Older versions of torch let them draw from the global generator alone: numbers and tensors must be those."""

    DRAWS = (
        torch.rand_like,
        torch.randn_like,
        lambda x: torch.randint_like(x, 9),
        lambda x: torch.randint_like(x, -3, 9),
        lambda x: torch.randint_like(x, low=-3, high=9, dtype=torch.int64),
        lambda x: torch.rand_like(x, dtype=torch.float64),
        lambda x: torch.randn_like(x, memory_format=torch.contiguous_format),
        lambda x: torch.rand_like(x, requires_grad=True),
    )
    SHAPES = (
        torch.ones(4, 3, 5, 5),
        torch.ones(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.ones(40, 7).T,
        torch.ones(4, 3, requires_grad=True),
    )

    @pytest.mark.parametrize("draw", DRAWS)
    @pytest.mark.parametrize("x", SHAPES, ids=["contiguous", "channels last", "transposed", "with a gradient"])
    def test_they_are_those_of_torch_itself(self, draw, x):
        with torch.random.fork_rng():
            torch.manual_seed(8)
            expected = draw(x)
        with RandomTape(torch.Generator().manual_seed(8)).record():
            found = draw(x)

        assert torch.equal(found, expected)
        assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
        assert found.requires_grad == expected.requires_grad


@pytest.mark.parametrize("given", ["nothing", "causal", "seen", "bias", "scale", "grouped"])
def test_attention_with_dropout_attends_as_torch_does(given):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    options = {
        "nothing": {},
        "causal": {"is_causal": True},
        "seen": {"attn_mask": torch.arange(5) < torch.tensor([[[[3]]], [[[5]]]])},
        "bias": {"attn_mask": torch.randn(5, 5, generator=generator, dtype=torch.float64)},
        "scale": {"scale": 0.3},
        "grouped": {"enable_gqa": True},
    }[given]
    if given == "grouped":
        k, v = k[:, :2], v[:, :2]
    tape = RandomTape(torch.Generator().manual_seed(1))
    with tape.record():
        # so rarely that none is dropped
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=1e-12, **options)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, **options))


def test_attention_drops_whole_links_and_the_same_again():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 4, 5, 3, generator=generator) for _ in range(2))
    links = torch.eye(5).expand(2, 4, 5, 5)
    tape = RandomTape(torch.Generator().manual_seed(1))
    with tape.record():
        dropped = F.scaled_dot_product_attention(q, k, links, None, 0.5)
    with tape.replay():
        assert torch.equal(dropped, F.scaled_dot_product_attention(q, k, links, None, 0.5))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * F.scaled_dot_product_attention(q, k, links)[kept])
    assert 0.3 < kept.double().mean() < 0.7
