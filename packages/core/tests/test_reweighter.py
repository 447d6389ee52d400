"""A loop of the user's own: what its loss is, what the loop may do with it, and what it is told."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core import Reweighter, UserError
from reweight_core.engine.lookahead import Choice
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import MethodPlugin

C, N, M, RATE = 4, 24, 6, 0.125


class L2RW:
    """The weights of Ren et al., Algorithm 1, by a look-ahead that core differentiates."""

    @hookimpl
    def generate_weights(self, step):
        epsilon = torch.zeros(step.n, dtype=step.dtype, requires_grad=True)
        look = step.look_ahead(lambda: step.n * epsilon[:, None] * step.D, virtual_step=False, unit_rate=True)
        (gradient,) = torch.autograd.grad(look.close(step.meta_objective(look.logits)), epsilon)
        weights = (-gradient).clamp(min=0)
        return step.n * weights / weights.sum()


class Softened:
    """Weights that a virtual step of plain training would like to change, none of them 0."""

    @hookimpl
    def generate_weights(self, step):
        if not step.looks_ahead:
            return torch.ones_like(step.losses)
        weights = torch.ones(step.n, dtype=step.dtype, requires_grad=True)
        # under double backward this leaves gradients in the network
        step.meta_loss(weights[:, None] * step.D).backward()
        return 1 - weights.grad / weights.grad.abs().max().clamp(min=1e-30) / 2


class ById:
    @hookimpl
    def generate_weights(self, step):
        return (1 + step.ids % 3).to(step.dtype)


class Halving:
    """Halves every gradient that the optimizer takes, and counts the updates."""

    def __init__(self):
        self.updates = torch.zeros(())

    @hookimpl
    def manipulate_update(self, step, gradients):
        return {name: gradient / 2 for name, gradient in gradients.items()}

    @hookimpl
    def follow_update(self, parameters):
        self.updates += 1


class Known:
    """Asks for a field of the context."""

    field = "epochs"

    def __init__(self, context):
        getattr(context, self.field)


LOOKING = {"needs_meta_set": True, "looks_ahead": "network"}
METHODS = {
    "l2rw-here": MethodPlugin("l2rw-here", "x", lambda config, context: L2RW(), **LOOKING),
    "softened": MethodPlugin("softened", "x", lambda config, context: Softened(), reuses_weights=True, **LOOKING),
    "by-id": MethodPlugin("by-id", "x", lambda config, context: ById()),
    "halving": MethodPlugin("halving", "x", lambda config, context: Halving()),
    "known": MethodPlugin("known", "x", lambda config, context: Known(context)),
}


@pytest.fixture(autouse=True)
def _methods(monkeypatch):
    find = registry.find

    def found(kind, name):
        return METHODS[name] if kind == "method" and name in METHODS else find(kind, name)

    monkeypatch.setattr(registry, "find", found)


class Text(nn.Module):
    """Embedding, attention, LayerNorm: takes keywords and returns a mapping, as a text model does."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norm, self.head, self.dropout = nn.LayerNorm(8), nn.Linear(8, C), dropout

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        heads = (part(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        mask = attention_mask[:, None, None, :]
        seen = F.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        x = self.norm(x + seen.transpose(1, 2).flatten(2))
        mean = (x * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        return {"logits": self.head(mean), "hidden": x}


def texts(n, seed, length=7):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(20, (n, length), generator=generator)
    lengths = torch.randint(2, length + 1, (n, 1), generator=generator)
    mask = torch.arange(length) < lengths
    return {"input_ids": ids * mask, "attention_mask": mask}, torch.randint(C, (n,), generator=generator)


def images(n, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator, dtype=dtype), torch.randint(C, (n,), generator=generator)


def mlp(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, C)).to(dtype)


def text_model(dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    return Text(dropout).to(dtype)


def made(method, model, meta=None, optimizer=None, **options):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    settings = {"num_classes": C, "train_size": N, "meta": meta} | options
    return Reweighter(method, model, optimizer, **settings), optimizer


def logits_of(out):
    return out["logits"] if isinstance(out, dict) else out


def call(model, inputs):
    return logits_of(model(**inputs) if isinstance(inputs, dict) else model(inputs))


def l2rw_weights(model, inputs, labels, meta):
    """Algorithm 1 by double backward: the gradient of the clean loss after a step with weights epsilon = 0."""
    model = copy.deepcopy(model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    epsilon = torch.zeros(len(labels), dtype=parameters[0].dtype, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        losses = F.cross_entropy(call(model, inputs), labels, reduction="none")
        gradients = torch.autograd.grad((epsilon * losses).sum(), parameters, create_graph=True)
        moved = {name: p - g for name, p, g in zip(names, parameters, gradients, strict=True)}
        args = ((), meta[0]) if isinstance(meta[0], dict) else ((meta[0],), {})
        clean = F.cross_entropy(logits_of(torch.func.functional_call(model, moved, *args)), meta[1])
        (gradient,) = torch.autograd.grad(clean, epsilon)
    weights = (-gradient).clamp(min=0)
    return len(labels) * weights / weights.sum()


KINDS = {"mlp": (mlp, images), "text": (text_model, texts)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lookahead", ["jvp", "double"])
def test_the_loss_is_the_weighted_one_and_so_is_its_gradient(kind, lookahead):
    build, batch = KINDS[kind]
    model, meta = build(), batch(M, 5)
    inputs, labels = batch(8, 1)
    weights = l2rw_weights(model, inputs, labels, meta)
    expected = (weights * F.cross_entropy(call(model, inputs), labels, reduction="none")).mean()
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    reweighter, _ = made("l2rw-here", model, meta, lookahead=lookahead)
    ids = torch.arange(8) + 3
    loss = reweighter(inputs, labels, ids)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-12, atol=0)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=0, atol=1e-12)
    found = reweighter.samples()
    torch.testing.assert_close(found["last_weight"][ids].double(), weights, rtol=1e-6, atol=1e-6)
    assert found["visits"].tolist() == [0] * 3 + [1] * 8 + [0] * (N - 11)
    assert torch.equal(found["predicted"][ids], call(model, inputs).argmax(1))


@pytest.mark.parametrize("method", ["l2rw-here", "softened"])
def test_lean_memory_changes_no_number(method):
    found = []
    for memory in ("shared", "lean"):
        model = text_model(dropout=0.3)
        reweighter, _ = made(method, model, texts(M, 5), lookahead="jvp", memory=memory)
        for number in range(2):
            reweighter.step(*texts(8, number), range(8))
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_between_look_aheads_no_clean_batch_is_drawn():
    drawn = []

    class Clean:
        def __iter__(self):
            while True:
                drawn.append(1)
                yield images(M, 5)

    reweighter, _ = made("softened", mlp(), Clean(), lookahead="jvp", meta_every=2)
    counts = []
    for _ in range(4):
        reweighter.step(*images(8, 1), range(8))
        counts.append(len(drawn))
    assert counts == [1, 1, 2, 2]


def test_scaled_and_clipped_steps_are_those_of_the_plain_weighted_loss():
    """As GradScaler does it: the loss times a factor, the gradients divided by it, then clipped."""
    inputs, labels = images(8, 1)
    meta, factor = images(M, 5), 2.0**16
    model = mlp()
    reference = copy.deepcopy(model)
    reweighter, optimizer = made("l2rw-here", model, meta, lookahead="jvp")
    theirs = torch.optim.SGD(reference.parameters(), lr=RATE, momentum=0.9)
    for _ in range(5):
        (factor * reweighter(inputs, labels, range(8))).backward()
        for p in model.parameters():
            p.grad /= factor
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        weights = l2rw_weights(reference, inputs, labels, meta)
        theirs.zero_grad()
        (weights * F.cross_entropy(reference(inputs), labels, reduction="none")).mean().backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        theirs.step()
    for mine, p in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, p, rtol=0, atol=1e-12)


def test_the_scaler_of_torch_steps_as_without_it():
    inputs, labels = images(8, 1, torch.float32)
    ends = []
    for enabled in (False, True):
        model = mlp(torch.float32)
        reweighter, optimizer = made("l2rw-here", model, images(M, 5, torch.float32), lookahead="jvp")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=enabled)
        for _ in range(3):
            scaler.scale(reweighter(inputs, labels, range(8))).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    # a power of 2 rounds nothing
    assert torch.equal(*ends)


def test_micro_batches_accumulate_to_the_whole_batch():
    inputs, labels = images(16, 1)
    whole, parts = mlp(), mlp()
    reweighter, _ = made("by-id", whole)
    reweighter(inputs, labels, range(16)).backward()
    accumulating, _ = made("by-id", parts)
    for part in (slice(0, 8), slice(8, 16)):
        (accumulating(inputs[part], labels[part], torch.arange(16)[part]) / 2).backward()
    for mine, p in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, p.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lookahead", ["jvp", "double"])
@pytest.mark.parametrize("method", ["l2rw-here", "softened"])
def test_a_look_ahead_leaves_the_gradients_that_are_accumulated_alone(method, lookahead):
    inputs, labels = images(16, 1)
    model = mlp()
    parts = [(inputs[part], labels[part], range(8)) for part in (slice(0, 8), slice(8, 16))]
    apart, _ = made(method, model, [images(M, 5)], lookahead=lookahead)
    # gradients that never are the parameters' own
    expected = [torch.autograd.grad(apart(*part) / 2, list(model.parameters())) for part in parts]
    assert all(p.grad is None for p in model.parameters())
    together, _ = made(method, model, [images(M, 5)], lookahead=lookahead)
    for part in parts:
        (together(*part) / 2).backward()
    for p, *of_parts in zip(model.parameters(), *expected, strict=True):
        torch.testing.assert_close(p.grad, sum(of_parts), rtol=0, atol=1e-12)


def test_step_does_what_the_three_lines_do():
    inputs, labels = images(8, 1)
    one, other = mlp(), mlp()
    reweighter, optimizer = made("l2rw-here", one, images(M, 5))
    whole, _ = made("l2rw-here", other, images(M, 5))
    for _ in range(3):
        loss = reweighter(inputs, labels, range(8))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert whole.step(inputs, labels, range(8)) == loss.detach()
    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("virtual_step", ["plain", "optimizer"])
def test_the_virtual_step_takes_every_group_at_its_own_rate(virtual_step):
    model, meta = mlp(), images(M, 5)
    inputs, labels = images(8, 1)
    rates, decay = (0.5, 0.5, 0.05, 0.05), 0.1
    groups = [{"params": [p], "lr": r, "weight_decay": decay} for p, r in zip(model.parameters(), rates, strict=True)]
    weights = torch.ones(8, dtype=torch.float64, requires_grad=True)
    parameters = list(model.parameters())
    losses = F.cross_entropy(model(inputs), labels, reduction="none")
    gradients = torch.autograd.grad((weights * losses).mean(), parameters, create_graph=True)
    added = decay if virtual_step == "optimizer" else 0.0
    names = [name for name, _ in model.named_parameters()]
    moved = {n: p - r * (g + added * p) for n, p, r, g in zip(names, parameters, rates, gradients, strict=True)}
    clean = F.cross_entropy(torch.func.functional_call(model, moved, (meta[0],)), meta[1])
    (gradient,) = torch.autograd.grad(clean, weights)
    reweighter, _ = made("softened", model, meta, torch.optim.SGD(groups), virtual_step=virtual_step, lookahead="jvp")
    reweighter(inputs, labels, range(8))
    found = reweighter.samples()["last_weight"][:8].double()
    torch.testing.assert_close(found, 1 - gradient / gradient.abs().max() / 2, rtol=1e-6, atol=1e-6)


def test_a_rate_that_the_loop_changes_is_that_of_the_virtual_step():
    inputs, labels = images(8, 1)

    def weights(rate):
        model = mlp()
        reweighter, optimizer = made("softened", model, images(M, 5), lookahead="jvp")
        optimizer.param_groups[0]["lr"] = rate
        reweighter(inputs, labels, range(8))
        return reweighter.samples()["last_weight"]

    assert torch.equal(weights(0.3), weights(torch.tensor(0.3)))
    assert not torch.allclose(weights(0.3), weights(3.0))


@pytest.mark.parametrize("lookahead", ["auto", "jvp"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_its_state_goes_on_with_the_same_bits(interrupted, lookahead, tmp_path):
    def fresh():
        model = text_model(torch.float32, dropout=0.3)
        model.train()
        return model, *made("softened", model, texts(3 * M, 5), meta_batch_size=M, lookahead=lookahead)

    def steps(reweighter, optimizer, numbers):
        for number in numbers:
            reweighter(*texts(8, number), range(8)).backward()
            optimizer.step()
            optimizer.zero_grad()
            if number == 1:
                reweighter.epoch_ended()

    model, reweighter, optimizer = fresh()
    steps(reweighter, optimizer, range(3))
    if interrupted:
        torch.save([part.state_dict() for part in (model, reweighter, optimizer)], tmp_path / "state")
        model, reweighter, optimizer = fresh()
        for part, state in zip((model, reweighter, optimizer), torch.load(tmp_path / "state"), strict=True):
            part.load_state_dict(state)
    steps(reweighter, optimizer, range(3, 6))
    once = text_model(torch.float32, dropout=0.3)
    again, optimizer = made("softened", once.train(), texts(3 * M, 5), meta_batch_size=M, lookahead=lookahead)
    steps(again, optimizer, range(6))
    assert all(map(torch.equal, model.parameters(), once.parameters()))
    for name, column in again.samples().items():
        assert torch.equal(column, reweighter.samples()[name]), name


@pytest.mark.parametrize(("before", "after"), [("double", "jvp"), ("auto", "double"), ("double", "auto")])
def test_a_restored_state_leaves_the_look_ahead_to_what_was_asked_for(before, after, monkeypatch):
    monkeypatch.setattr("reweight_core.training.reweighter.choose_lookahead", lambda *_: Choice("fd", 1e-4))
    one, _ = made("softened", mlp(), images(M, 5), lookahead=before)
    one.step(*images(8, 1), range(8))
    other, _ = made("softened", mlp(), images(M, 5), lookahead=after)
    other.load_state_dict(one.state_dict())
    other.step(*images(8, 1), range(8))
    assert other._step.lookahead.name == {"auto": "fd"}.get(after, after)


def test_plugins_change_the_gradients_that_the_loop_has_made():
    inputs, labels = images(8, 1)
    one, other = mlp(), mlp()
    reweighter, optimizer = made("halving", one)
    plain = torch.optim.SGD(other.parameters(), lr=RATE, momentum=0.9)
    for _ in range(3):
        (4 * reweighter(inputs, labels, range(8))).backward()
        optimizer.step()
        optimizer.zero_grad()
        (2 * F.cross_entropy(other(inputs), labels)).backward()
        plain.step()
        plain.zero_grad()
    for mine, p in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, p, rtol=0, atol=1e-12)
    with pytest.raises(UserError, match=r"halving.*several are accumulated"):
        for _ in range(2):
            reweighter(inputs, labels, range(8))


def test_a_meta_loader_is_gone_through_again_and_a_dataset_without_repeats():
    seen = []

    class Noting(nn.Linear):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    def drawn(meta, steps):
        torch.manual_seed(0)
        reweighter, _ = made("l2rw-here", Noting(5, C, dtype=torch.float64), meta, lookahead="jvp", meta_batch_size=2)
        reweighter(*images(8, 1), range(8))
        given = []
        for _ in range(steps):
            seen.clear()
            reweighter(*images(8, 1), range(8))
            given += [x[:, 0] for x in seen if len(x) == 2][:1]
        return torch.cat(given)

    x, y = images(6, 5)
    loader = [(x[i : i + 2], y[i : i + 2]) for i in (0, 2, 4)]
    assert drawn(loader, 5).tolist() == x[:, 0].roll(-2).tolist() + x[2:, 0].tolist()
    for meta in ((x, y), torch.utils.data.TensorDataset(x, y)):
        found = drawn(meta, 5)
        # three batches are a pass through all; the first was drawn before
        assert len(set(found[:4].tolist())) == 4
        assert sorted(found[4:].tolist()) == sorted(x[:, 0].tolist())


def test_frozen_and_tied_parameters_are_what_they_are():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
            self.b.weight = self.a.weight
            self.head = nn.Linear(5, C)
            self.body.requires_grad_(False)

        def forward(self, x, scale):
            return self.head(self.b(self.a(self.body(x)).tanh()) * scale).contiguous(), None

    torch.manual_seed(0)
    model = Tied().double()
    x, labels = images(8, 1)
    meta = images(M, 5)
    given, clean = (x, torch.full((8, 1), 2.0)), ((meta[0], torch.full((M, 1), 0.5)), meta[1])
    found = []
    for lookahead in ("jvp", "double"):
        one = copy.deepcopy(model)
        optimizer = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=RATE)
        reweighter, _ = made("l2rw-here", one, clean, optimizer, lookahead=lookahead)
        reweighter(given, labels, range(8)).backward()
        assert one.body.weight.grad is None
        found.append((reweighter.samples()["last_weight"], one.a.weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
    assert found[0][0].max() > 0


def test_a_dropout_inside_fused_attention_is_the_same_in_every_pass():
    model = text_model(dropout=0.5).train()
    inputs, labels = texts(8, 1)
    weights = []
    for lookahead in ("jvp", "double"):
        reweighter, _ = made("softened", model, texts(M, 5), lookahead=lookahead)
        reweighter(inputs, labels, range(8))
        weights.append(reweighter.samples()["last_weight"])
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_what_was_compiled_runs_as_it_was_written():
    inputs, labels = images(8, 1)
    found = []
    for wrap in (nn.Sequential, torch.compile, lambda model: model.compile() or model):
        model = mlp()
        wrapped = wrap(model)
        reweighter, _ = made("l2rw-here", wrapped, images(M, 5), lookahead="jvp")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            reweighter.step(inputs, labels, range(8))
        assert any("is compiled" in str(w.message) for w in told) == (len(found) > 0)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-12, atol=1e-12)


class Checkpointed(nn.Module):
    def __init__(self, dropout, reentrant):
        super().__init__()
        self.first, self.body, self.head = (
            nn.Linear(5, 7),
            nn.Sequential(nn.Linear(7, 7), nn.Dropout(dropout)),
            nn.Linear(7, C),
        )
        self.reentrant = reentrant

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.body, self.first(x), use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("method", "dropout", "works"), [("by-id", 0.0, True), ("by-id", 0.5, False), ("l2rw-here", 0.0, False)]
)
def test_gradient_checkpointing_works_where_its_second_pass_gives_the_same(reentrant, method, dropout, works):
    torch.manual_seed(0)
    model = Checkpointed(dropout, reentrant).double()
    reweighter, _ = made(method, model, images(M, 5), lookahead="jvp") if method != "by-id" else made(method, model)
    inputs, labels = images(8, 1)
    if not works:
        with pytest.raises(UserError, match="gradient checkpointing") as caught:
            reweighter(inputs, labels, range(8))
        assert "\n" not in str(caught.value)
        return
    reweighter(inputs, labels, range(8)).backward()
    plain = model.head(model.body(model.first(inputs)))
    weights = 1 + torch.arange(8) % 3
    expected = torch.autograd.grad(
        (weights * F.cross_entropy(plain, labels, reduction="none")).mean(), list(model.parameters())
    )
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=0, atol=1e-12)


def test_it_computes_in_the_number_type_of_the_loops_autocast():
    inputs, labels = images(8, 1, torch.float32)
    model = mlp(torch.float32)
    seen = set()
    model[2].register_forward_hook(lambda module, given, output: seen.add(output.dtype))
    reweighter, _ = made("softened", model, images(M, 5, torch.float32), lookahead="jvp")
    with torch.autocast("cpu", torch.bfloat16):
        loss = reweighter(inputs, labels, range(8))
    loss.backward()
    assert seen == {torch.bfloat16}
    assert loss.dtype == torch.float32
    exact = mlp(torch.float32)
    reference, _ = made("softened", exact, images(M, 5, torch.float32), lookahead="jvp")
    reference(inputs, labels, range(8)).backward()
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        assert 0 < (p.grad - q.grad).norm() / q.grad.norm() < 0.05
    again, _ = made("softened", mlp(torch.float32), images(M, 5, torch.float32))
    with torch.autocast("cpu", torch.float16), pytest.raises(UserError, match="autocast to bfloat16"):
        again(inputs, labels, range(8))


def test_the_look_ahead_is_chosen_anew_after_every_epoch(monkeypatch):
    chosen = []

    def choose(step, size, stage, epoch):
        chosen.append((size, epoch))
        return Choice("fd", 1e-4)

    monkeypatch.setattr("reweight_core.training.reweighter.choose_lookahead", choose)
    reweighter, _ = made("softened", mlp(), images(M, 5))
    for _ in range(2):
        for _ in range(3):
            reweighter.step(*images(8, 1), range(8))
        reweighter.epoch_ended()
    assert chosen == [(8, 0), (8, 1)]
    assert reweighter.state_dict()["lookahead"] == {"name": "fd", "length": 1e-4, "error": None}


def test_epochs_have_figures():
    inputs, labels = images(8, 1)
    model = mlp()
    losses = F.cross_entropy(model(inputs), labels, reduction="none")
    weights = 1.0 + torch.arange(8) % 3
    reweighter, _ = made("by-id", model)
    reweighter(inputs, labels, range(8))
    figures = reweighter.epoch_ended()
    assert figures["train_loss"] == pytest.approx(losses.mean().item())
    assert figures["train_accuracy"] == (model(inputs).argmax(1) == labels).double().mean().item()
    assert figures["effective_examples"] == pytest.approx((weights.sum() ** 2 / weights.square().sum()).item())
    assert figures["meta_loss"] is None
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    reweighter(inputs, labels, range(8))
    with pytest.raises(UserError, match="step 2: the losses became"):
        reweighter.epoch_ended()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"method": "l2rw-here"}, "needs clean examples: give meta="),
        ({"clip": 1}, "no option is called 'clip' here"),
        ({"lokahead": "jvp"}, "did you mean 'lookahead'"),
        ({"epochs": 3, "lr": 0.1}, "'lr' here .it is the loop's own."),
        ({"method": "known"}, "known' needs to know how long training takes: give epochs="),
        ({"method": "known", "field": "train"}, "known' needs the training examples' labels: give labels="),
        ({"method": "known", "field": "meta"}, "needs what only a run has .meta.: use reweight train"),
        ({"method": "known", "field": "new_network"}, "known' trains a second network: give new_model="),
        ({"method": "by-id", "frozen": True}, "no parameter to train"),
        ({"method": "by-id", "half": True}, "the optimizer lacks 2 of the model's trainable parameters .2.weight."),
        ({"method": "nothing"}, "nothing"),
        (
            {"method": "softened", "meta": images(M, 5), "virtual_step": "optimizer", "kind": torch.optim.Adagrad},
            "the step of Adagrad cannot be taken virtually",
        ),
    ],
)
def test_what_cannot_be_is_told_when_it_is_made(change, text, monkeypatch):
    change = {"method": "erm"} | change
    model = mlp()
    monkeypatch.setattr(Known, "field", change.pop("field", "epochs"))
    optimizer = change.pop("kind", torch.optim.SGD)(
        list(model.parameters())[: 2 if change.pop("half", 0) else 4], lr=RATE
    )
    model.requires_grad_(not change.pop("frozen", False))
    with pytest.raises(UserError, match=text) as caught:
        made(change.pop("method"), model, optimizer=optimizer, **change)
    assert "\n" not in str(caught.value)


def test_copies_of_a_model_are_refused():
    with pytest.raises(UserError, match="use DistributedDataParallel"):
        made("erm", nn.DataParallel(mlp()))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((torch.zeros(3, 5), [0, 1, 4], range(3)), "labels of a batch go from 0 to 4; num_classes=4 allows 0 to 3"),
        ((torch.zeros(3, 5), [0, 1, 2], [0, 1, N]), "ids of a batch go from 0 to 24; train_size=24 allows 0 to 23"),
        ((torch.zeros(3, 5), torch.zeros(3), range(3)), "labels of a batch must be whole numbers"),
        ((torch.zeros(3, 5), [0, 1, 2], range(2)), "2 ids for 3 labels"),
        ((torch.zeros(3, 6), [0, 1, 2], range(3)), "the model cannot be trained: RuntimeError"),
        (({"x": torch.zeros(3, 5)}, [0, 1, 2], range(3)), "the model cannot be trained: TypeError"),
    ],
)
def test_a_batch_that_cannot_be_is_told(given, text):
    reweighter, _ = made("erm", mlp(torch.float32))
    with pytest.raises(UserError, match=text) as caught:
        reweighter(*given)
    assert "\n" not in str(caught.value)


def test_gradients_that_are_off_and_a_loader_that_is_empty_are_told():
    reweighter, _ = made("by-id", mlp())
    with torch.no_grad(), pytest.raises(UserError, match="training only"):
        reweighter(*images(8, 1), range(8))
    empty, _ = made("l2rw-here", mlp(), iter([images(M, 5)]), lookahead="jvp")
    empty(*images(8, 1), range(8))
    with pytest.raises(UserError, match="meta= gives no batch"):
        empty(*images(8, 1), range(8))


def test_a_model_of_several_processes_synchronises_its_gradients(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        plain, model = mlp(), mlp()
        wrapped = nn.parallel.DistributedDataParallel(model)
        reduced = []

        def hook(state, bucket):
            reduced.append(bucket.buffer().clone())
            future = torch.futures.Future()
            future.set_result(2 * bucket.buffer())
            return future

        wrapped.register_comm_hook(None, hook)
        one, _ = made("l2rw-here", plain, images(M, 5), lookahead="jvp")
        other, _ = made("l2rw-here", wrapped, images(M, 5), lookahead="jvp")
        for number in range(3):
            for p, q in zip(plain.parameters(), model.parameters(), strict=True):
                p.grad = q.grad = None
            one(*images(8, number), range(8)).backward()
            other(*images(8, number), range(8)).backward()
            for p, q in zip(plain.parameters(), model.parameters(), strict=True):
                torch.testing.assert_close(2 * p.grad, q.grad, rtol=1e-12, atol=1e-12)
        assert len(reduced) == 3
    finally:
        torch.distributed.destroy_process_group()
