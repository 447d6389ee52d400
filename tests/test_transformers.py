"""The Trainer of transformers with learned weights, on a small text model that is made here."""

import copy
import json
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from reweight_core import Reweighter, UserError
from reweight_core.integrations.transformers import ReweightTrainer

N, CLASSES = 12, 3


def model_of(dropout=0.1, **settings):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=16, num_labels=CLASSES, attention_probs_dropout_prob=dropout,
        hidden_dropout_prob=dropout, **settings,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def sentences(count, seed):
    """Token 3 + the class somewhere among others; of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for i in range(count):
        ids = torch.randint(10, 40, (int(torch.randint(4, 10, (), generator=generator)),), generator=generator)
        ids[1] = 3 + i % CLASSES
        examples.append({"input_ids": ids.tolist(), "label": i % CLASSES, "text": "not for the model"})
    return examples


def padded(features):
    length = max(len(feature["input_ids"]) for feature in features)
    names = features[0].keys() - {"input_ids", "text", "label"}
    batch = {name: torch.tensor([feature[name] for feature in features]) for name in names}
    batch["labels"] = torch.tensor([feature["label"] for feature in features])
    batch["input_ids"] = torch.tensor([f["input_ids"] + [0] * (length - len(f["input_ids"])) for f in features])
    batch["attention_mask"] = (batch["input_ids"] > 0).long()
    return batch


class Own(nn.Module):
    """A network without a config."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(40, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.out(self.words(input_ids).mean(1))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trainer_of(folder, method="gdw", model=None, meta=True, reweight=None, train=None, loss=None, **arguments):
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "num_train_epochs": 2, "report_to": "none",
        "disable_tqdm": True, "use_cpu": True, "learning_rate": 1e-2, "save_strategy": "no", "logging_steps": 1,
    }  # fmt: skip
    return ReweightTrainer(
        model or model_of(),
        TrainingArguments(**settings | arguments),
        data_collator=padded,
        train_dataset=train or sentences(N, 1),
        eval_dataset=sentences(9, 2),
        method=method,
        meta_dataset=sentences(9, 3) if meta else None,
        reweight=reweight,
        compute_loss_func=loss,
    )


def test_it_trains_evaluates_and_knows_every_example(tmp_path):
    trainer = trainer_of(tmp_path, gradient_accumulation_steps=2, num_train_epochs=3, per_device_eval_batch_size=9)
    trainer.train()
    samples = trainer.reweighter.samples()
    assert samples["visits"].tolist() == [3] * N
    assert len(set(samples["mean_weight"].tolist())) > N / 2
    batch = padded(sentences(9, 2))
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    figures = [line for line in trainer.state.log_history if "reweight_train_loss" in line]
    assert len(figures) == 3
    assert figures[2]["reweight_train_loss"] < figures[0]["reweight_train_loss"]


def test_the_training_set_can_be_evaluated_too(tmp_path):
    trainer = trainer_of(tmp_path, per_device_eval_batch_size=N, num_train_epochs=1)
    batch = padded(sentences(N, 1))
    for _ in range(2):
        with torch.no_grad():
            expected = trainer.model.eval()(**batch)
        found = trainer.predict(trainer.train_dataset)
        torch.testing.assert_close(torch.tensor(found.predictions), expected.logits)
        assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
        trainer.train()


def test_plain_training_is_that_of_the_trainer_itself(tmp_path):
    """Accumulation and clipping included; without dropout, whose draws are the reweighter's."""
    model, args = model_of(dropout=0.0), {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    plain = copy.deepcopy(model)
    ours = trainer_of(tmp_path / "ours", "erm", model, meta=False, **args)
    ours.train()
    theirs = Trainer(plain, ours.args, data_collator=padded, train_dataset=sentences(N, 1))
    theirs.model_accepts_loss_kwargs = False
    theirs.train()
    for (name, mine), p in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(mine, p[1], rtol=1e-4, atol=1e-5, msg=name)
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_that_is_resumed_ends_with_the_same_bits(tmp_path):
    whole, again = (trainer_of(tmp_path, save_strategy="epoch", reweight={"lookahead": "jvp"}) for _ in range(2))
    whole.train()
    first = min(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    assert json.loads((first / "trainer_state.json").read_text())["epoch"] == 1
    again.train(resume_from_checkpoint=str(first))
    for mine, p in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, p)
    for name, column in whole.reweighter.samples().items():
        assert torch.equal(column, again.reweighter.samples()[name]), name


def trained_and_kept(trainer, resumed=None):
    """Train; return the trained and the averaged network as they were at the end."""
    found, end = [], trainer.end

    def copying():
        for state in (trainer.model.state_dict(), trainer.reweighter.evaluation_model().state_dict()):
            found.append({name: tensor.clone() for name, tensor in state.items()})
        end()

    trainer.end = copying
    trainer.train(resume_from_checkpoint=resumed)
    return found


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    settings = {"reweight": {"components": ["ema"], "lookahead": "jvp"}, "save_strategy": "epoch"}
    settings |= {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 9}
    whole, again = (trainer_of(tmp_path, **settings) for _ in range(2))
    trained, kept = trained_and_kept(whole)
    assert not torch.equal(trained["classifier.weight"], kept["classifier.weight"])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in whole.model.state_dict().items())
    batch = padded(sentences(9, 2))
    with torch.no_grad():
        expected = whole.model.eval()(**batch).loss.item()
    found = [line["eval_loss"] for line in whole.state.log_history if "eval_loss" in line]
    assert found[-1] == whole.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-6").state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in saved.items())
    # from its checkpoint training goes on as if it had not been interrupted, nor evaluated
    again.args.eval_strategy = "no"
    ends = trained_and_kept(again, str(tmp_path / "checkpoint-3"))
    for mine, other in zip(ends, (trained, kept), strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def test_the_best_checkpoint_has_the_average_that_was_best(tmp_path):
    trainer = trainer_of(
        tmp_path, reweight={"components": ["ema"]}, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="age", greater_is_better=False,
        per_device_eval_batch_size=9,
    )  # fmt: skip
    ages = count()
    trainer.compute_metrics = lambda _: {"age": next(ages)}
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-7)


def test_a_checkpoint_of_another_trainer_is_refused_before_training(tmp_path):
    ours = trainer_of(tmp_path, "erm", Own(), meta=False, reweight={"num_classes": CLASSES})
    arguments = copy.copy(ours.args)
    arguments.save_strategy, arguments.max_steps = "epoch", 3
    Trainer(Own(), arguments, data_collator=padded, train_dataset=sentences(N, 1)).train()
    for given in (True, str(tmp_path / "checkpoint-3")):
        with pytest.raises(UserError, match=r"checkpoint-3': there is no reweighter.pt in it"):
            ours.train(resume_from_checkpoint=given)
    assert ours.reweighter is None


def test_a_network_without_a_config_is_trained(tmp_path):
    trainer = trainer_of(tmp_path, model=Own(), reweight={"num_classes": CLASSES})
    trainer.train()
    assert trainer.reweighter.samples()["visits"].tolist() == [2] * N


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fp16": True}, "use bf16=True"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing_disable"),
        ({"meta": False}, "needs clean examples: give meta="),
        ({"reweight": {"clipp": 1}}, "did you mean 'clip'"),
        ({"method": "glc"}, "use reweight train"),
        ({"reweight": {"components": ["mixup"]}, "method": "l2rw"}, "mixup: .* cannot be mixed"),
        ({"method": "fsr"}, "fsr: keeps a dictionary of examples, whose inputs must be one tensor each"),
        ({"loss": lambda *_, **__: None}, "compute_loss_func: .* give reweight={'loss': NAME}"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1: .*'label-smoothing'"),
        ({"model": Own()}, "give reweight={'num_classes': C}"),
        ({"train": [{"input_ids": [1, 2], "label": [1, 0, 1]}] * 8}, "labels of a batch must be whole numbers"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(change, text, tmp_path):
    with pytest.raises(UserError, match=text) as caught:
        trainer_of(tmp_path, **change).train()
    assert "\n" not in str(caught.value)


def lora(attention):
    base = model_of(dropout=0.0, attn_implementation=attention)
    return get_peft_model(base, LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [lambda a: model_of(0.0, attn_implementation=a), lora], ids=["bert", "lora"])
def test_forward_mode_gives_the_weights_of_double_backward(build, attention):
    batch, meta = padded(sentences(8, 1)), padded(sentences(9, 3))
    labels = batch.pop("labels")
    found = []
    for lookahead in ("jvp", "double"):
        model = build(attention).train()
        # adapters begin at zero, where nothing depends on their other half
        torch.manual_seed(1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.normal_(std=0.1)
        trained = [p for p in model.parameters() if p.requires_grad]
        reweighter = Reweighter(
            "l2rw", model, torch.optim.SGD(trained, lr=0.1), num_classes=CLASSES, train_size=8, meta=[meta],
            lookahead=lookahead,
        )  # fmt: skip
        loss = reweighter(batch, labels, range(8))
        loss.backward()
        weights = reweighter.samples()["last_weight"]
        expected = (weights * F.cross_entropy(model(**batch).logits, labels, reduction="none")).mean()
        for p, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        found.append(weights)
    assert found[0].max() > 0
    assert (found[0] - found[1]).norm() / found[1].norm() < 1e-6
