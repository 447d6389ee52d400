"""FSR: Algorithm 1 of Zhang & Pfister, "Learning Fast Sample Re-weighting Without Reward Data" (ICCV 2021).

Momentum and weight decay in the virtual step, weight decay in the reward loss, the sum in the normaliser and the
common forward pass of probe and training images are those of the official code.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core import Context, Examples, Step, UserError, VirtualSGD, hookimpl, part_of, prefixed
from reweight_method_fsr.dictionary import Dictionary
from reweight_method_fsr.options import FSRConfig
from reweight_method_fsr.pushers import PUSHERS, ForgettingEvents, Pusher


class FSR:
    """Weights examples by a dictionary of trusted ones, looking ahead with the classifier head alone."""

    def __init__(self, config: FSRConfig, context: Context):
        self.config, self.weight_decay = config, context.weight_decay
        if 0 < context.epochs <= config.warmup_epochs:
            warnings.warn(
                f"--warmup-epochs {config.warmup_epochs}: all {context.epochs} epochs of the run have equal weights",
                stacklevel=2,
            )
        self._train = context.train
        self._generator = torch.Generator(context.device).manual_seed(context.seed)
        self._rate = torch.tensor(config.virtual_lr, device=context.device, dtype=context.dtype)
        size, device = context.train_size, context.device
        self._scores = context.by_example(torch.zeros(size, device=device, dtype=context.dtype))
        self._seen = context.by_example(torch.zeros(size, dtype=torch.bool, device=device))
        self._warming_up = torch.tensor(config.warmup_epochs > 0, device=device)
        self._pusher: Pusher = (
            ForgettingEvents(context) if config.pusher == "forgetting-events" else PUSHERS[config.pusher]
        )

    @hookimpl
    def provide_meta_set(self, held_out: Examples | None) -> Dictionary:
        """R_0 <- BalancedSampleBatch(D, |R|), or the clean set that was given."""
        if self.config.reward == "given":
            if held_out is None:
                raise UserError("--reward given: there is no clean meta set; give --meta-size N, or use the dictionary")
            # enough of each class for the largest, so that all of the given set is in it
            size = held_out.labels.unique().numel() * int(held_out.labels.bincount().max())
            self.dictionary = Dictionary(held_out, size, self._probe_size(len(held_out)), self._generator)
        else:
            size = self.config.dictionary_size or default_dictionary_size(len(self._train))
            self.dictionary = Dictionary(self._train, size, self._probe_size(size), self._generator)
            share = len(self.dictionary.chosen()) / len(self._train)
            if share > 0.5:
                warnings.warn(
                    f"--dictionary-size {size}: the dictionary holds {share:.0%} of the training examples, so it "
                    "cannot leave wrong labels out; the paper's holds 4 %",
                    stacklevel=2,
                )
        return self.dictionary

    def _probe_size(self, dictionary_size: int) -> int:
        return self.config.probe_size or default_probe_size(dictionary_size)

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """One step of Algorithm 1, on the scale where 1 is plain training: n w_i, shape (n,)."""
        b = step.n
        # omega_o <- 1/b;  sum_i omega_i L_i has the logit gradient omega_i b D_i
        omega_o = torch.full_like(step.labels, 1 / b, dtype=step.dtype, requires_grad=True)
        # Theta_meta <- Theta_meta - alpha grad sum_i omega_i L_i, and the probe batch under it
        look = step.look_ahead(
            lambda: b * omega_o[:, None] * step.D,
            scope="head",
            update=VirtualSGD(self._rate, self.config.virtual_momentum, self.weight_decay, step.optimizer_state),
            also=step.original.inputs if self.config.probe == "joint" else None,
        )
        probe = step.meta
        L_R = F.cross_entropy(
            look.logits[: len(probe.labels)], probe.labels, label_smoothing=self.config.reward_smoothing
        )
        L_R = L_R + self.weight_decay / 2 * sum(p.square().sum() for p in look.parameters.values())
        # Eq. 2 and 3
        (h,) = torch.autograd.grad(look.close(L_R), omega_o)
        h, of_batch = step.whole(h), step.whole(omega_o.detach())
        omega = step.part(normalise(clip(h) if self.config.negative_weights == "clip" else shift(of_batch - h)))
        # Eq. 5, and its average over an example's visits
        of_training = look.logits[len(probe.labels) :] if self.config.probe == "joint" else look.training_logits
        meta_losses = F.cross_entropy(of_training.detach(), step.labels, reduction="none")
        self._push(step, meta_losses)
        # while Epoch(t) < E all examples count the same
        return torch.where(self._warming_up, torch.ones_like(omega), b * omega)

    def _push(self, step: Step, meta_losses: Tensor) -> None:
        decay = self.config.score_momentum
        score = decay * self._scores[step.ids] + (1 - decay) * self._pusher(step, meta_losses)
        self._scores.index_copy_(0, step.ids, score.to(self._scores.dtype))
        self._seen.index_fill_(0, step.ids, True)

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """R_t+1 <- the best of every class (Eq. 4)."""
        self._warming_up.fill_(epoch < self.config.warmup_epochs)
        if self.config.reward == "given":
            self.dictionary.augment()
        else:
            self.dictionary.refresh(self._scores, self._seen)

    @hookimpl
    def trusted_examples(self) -> dict[str, Tensor]:
        """The dictionary of the next epoch, unless it is a clean set that was given."""
        return {} if self.config.reward == "given" else {"dictionary": self.dictionary.chosen()}

    def state_dict(self) -> dict[str, Tensor]:
        """Dictionary, scores and the pusher's state."""
        state = {"scores": self._scores, "seen": self._seen, "warming_up": self._warming_up}
        state |= prefixed("dictionary", self.dictionary.state_dict())
        if isinstance(self._pusher, ForgettingEvents):
            state |= prefixed("pusher", self._pusher.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, tensor in (("scores", self._scores), ("seen", self._seen), ("warming_up", self._warming_up)):
            tensor.copy_(state[name])
        self.dictionary.load_state_dict(part_of(state, "dictionary"))
        if isinstance(self._pusher, ForgettingEvents):
            self._pusher.load_state_dict(part_of(state, "pusher"))


def default_dictionary_size(train_size: int) -> int:
    """Return 2,000 as in the official code, at most 15 % of the training set, so that it can leave wrong labels out."""
    return max(min(2000, int(0.15 * train_size)), 1)


def default_probe_size(dictionary_size: int) -> int:
    """Return 200 as in the official code, at most half of the dictionary, so that probe batches differ."""
    return max(min(200, dictionary_size // 2), 1)


def clip(h: Tensor) -> Tensor:
    """Return max(0, -h): only what brings the reward loss down counts, (n,)."""
    return (-h).clamp(min=0)


def shift(omega: Tensor) -> Tensor:
    """Return omega - min omega + 1/n (section 5.2), (n,)."""
    return omega - omega.min() + 1 / len(omega)


def normalise(omega: Tensor) -> Tensor:
    """Return weights whose sum is 1, or less where the gradients are tiny, (n,)."""
    return omega / (omega.sum() + 1e-5)
