"""A module of Lightning with learned weights, on a small network that is made here."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from reweight_core import Reweighter, UserError
from reweight_core.integrations.lightning import Reweighting

N, M, CLASSES, BATCH, EPOCHS = 24, 8, 3, 6, 3


def tensors(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    return nn.functional.one_hot(labels, 5).float() + torch.randn(n, 5, generator=generator), labels


class Module(pl.LightningModule):
    def __init__(self, optimizers=1):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, CLASSES))
        self.optimizers_wanted = optimizers
        self.automatic_optimization = optimizers == 1

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self.reweighter(*batch)

    def configure_optimizers(self):
        made = [torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9) for _ in range(self.optimizers_wanted)]
        return made if len(made) > 1 else made[0]


def loader():
    return DataLoader(TensorDataset(*tensors(N, 1), torch.arange(N)), BATCH)


def callback(method="gdw", **settings):
    given = {"num_classes": CLASSES, "meta": tensors(M, 2), "meta_batch_size": 4, "lookahead": "jvp"} | settings
    return Reweighting(method, **given)


def trained(folder, module, reweighting, path=None, batches=None, val=None, **arguments):
    settings = {"max_epochs": EPOCHS, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "default_root_dir": folder, "callbacks": [reweighting]}
    trainer = pl.Trainer(**settings | arguments)
    trainer.fit(module, loader() if batches is None else batches, val, ckpt_path=path)
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_it_is_the_loop_of_pytorch(tmp_path):
    module = Module()
    reweighting = callback()
    trainer = trained(tmp_path, module, reweighting, accumulate_grad_batches=2, gradient_clip_val=0.3)
    plain = Module().train()
    (optimizer,) = [plain.configure_optimizers()]
    reweighter = Reweighter(
        "gdw", plain, optimizer, num_classes=CLASSES, train_size=N, meta=tensors(M, 2), meta_batch_size=4,
        lookahead="jvp", epochs=EPOCHS, steps=EPOCHS * N // BATCH,
    )  # fmt: skip
    for _ in range(EPOCHS):
        for number, batch in enumerate(loader()):
            (reweighter(*batch) / 2).backward()
            if number % 2:
                nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
                optimizer.step()
                optimizer.zero_grad()
        figures = reweighter.epoch_ended()
    for mine, p in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, p, rtol=0, atol=1e-6)
    found = reweighting.reweighter.samples()
    assert found["visits"].tolist() == [EPOCHS] * N
    torch.testing.assert_close(found["mean_weight"], reweighter.samples()["mean_weight"])
    assert trainer.callback_metrics["reweight_train_loss"].item() == pytest.approx(figures["train_loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_is_resumed_ends_with_the_same_bits(tmp_path):
    def keeping():
        return pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)

    whole, again = Module(), Module()
    first, second = callback(), callback()
    trained(tmp_path, whole, first, callbacks=[first, keeping()])
    trained(tmp_path, again, second, tmp_path / "epoch=0.ckpt")
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    for name, column in first.reweighter.samples().items():
        assert torch.equal(column, second.reweighter.samples()[name]), name


class Validated(Module):
    """Notes at the end of every epoch the weights that are validated and those that are trained."""

    def __init__(self):
        super().__init__()
        self.validated, self.trained, self.kept = [], [], []

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.validated.append(self.net[0].weight.clone())

    def on_train_batch_end(self, *_):
        self.trained.append(self.net[0].weight.detach().clone())
        average = dict(self.reweighter.state_dict()["plugins"])["ema.average.net.0.weight"]
        self.kept.append(average.clone())


@pytest.mark.filterwarnings("ignore")
def test_the_average_is_validated_and_saved_and_training_goes_on_without_it(tmp_path):
    def keeping():
        return pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)

    modules = [Validated() for _ in range(3)]
    callbacks = [callback(components=["ema"]) for _ in modules]
    for module, reweighting, val in zip(modules[:2], callbacks[:2], ([loader()], None), strict=True):
        trainer = trained(tmp_path, module, reweighting, callbacks=[reweighting, keeping()], val=val)
    whole, unseen, again = modules
    steps = N // BATCH
    assert all(map(torch.equal, whole.validated[::steps], whole.kept[steps - 1 :: steps]))
    assert not torch.equal(whole.kept[-1], whole.trained[-1])
    # validation left no trace
    assert all(map(torch.equal, whole.trained, unseen.trained))
    assert torch.equal(whole.net[0].weight, whole.kept[-1])
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=False)["state_dict"]
    assert torch.equal(saved["net.0.weight"], whole.kept[steps - 1])
    trained(tmp_path, again, callbacks[2], tmp_path / "epoch=0.ckpt")
    assert all(map(torch.equal, whole.trained[steps:], again.trained))
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    # a checkpoint of the end too can be gone on with
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert torch.equal(
        torch.load(tmp_path / "end.ckpt", weights_only=False)["reweight_trained"]["net.0.weight"], unseen.trained[-1]
    )


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_that_could_not_have_the_average_are_refused(tmp_path):
    weights_only = pl.callbacks.ModelCheckpoint(tmp_path, save_weights_only=True)
    with pytest.raises(UserError, match="would keep the weights that are trained"):
        reweighting = callback(components=["ema"])
        trained(tmp_path, Module(), reweighting, callbacks=[reweighting, weights_only])
    reweighting = callback()
    trained(tmp_path, Module(), reweighting, callbacks=[reweighting, weights_only], max_epochs=1)


@pytest.mark.filterwarnings("ignore")
def test_a_trained_module_can_be_pickled(tmp_path):
    module = Module()
    trained(tmp_path, module, callback(), max_epochs=1)
    torch.save(module, tmp_path / "module.pt")
    again = torch.load(tmp_path / "module.pt", weights_only=False)
    assert all(map(torch.equal, module.parameters(), again.parameters()))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(loader().dataset)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batches", [list(loader()), {"a": loader()}, DataLoader(Stream(), BATCH)], ids=type)
def test_a_training_set_of_unknown_size_needs_to_be_told_its_size(batches, tmp_path):
    with pytest.raises(UserError, match="how many training examples there are cannot be seen: give train_size="):
        trained(tmp_path, Module(), callback(), batches=batches)


@pytest.mark.filterwarnings("ignore")
def test_a_stream_is_trained_on_when_its_size_is_given(tmp_path):
    reweighting = callback(train_size=N)
    trained(tmp_path, Module(), reweighting, batches=DataLoader(Stream(), BATCH), max_epochs=1)
    assert reweighting.reweighter.samples()["visits"].tolist() == [1] * N


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("optimizers", "settings", "text"),
    [
        (2, {}, "a module of one optimizer, and this one has 2"),
        (1, {"meta": None}, "needs clean examples: give meta="),
        (1, {"clipp": 1}, "did you mean 'clip'"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_step(optimizers, settings, text, tmp_path):
    with pytest.raises(UserError, match=text):
        trained(tmp_path, Module(optimizers), callback(**settings))
