"""Several processes of a run as threads that take turns, so that a test needs neither processes nor a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from reweight_core.machine.together import Together

Result = TypeVar("Result")


class OutOfStepError(Exception):
    """The processes do not exchange the same things in the same order."""


class _StoppedError(Exception):
    """Another process has failed."""


class InTurns:
    """Runs a function for each of some processes; one runs at a time, until it has something to exchange.

    Args:
        size: number of processes.
        sync_batchnorm: as for `Together`.
    """

    def __init__(self, size: int, sync_batchnorm: bool = False):
        self._size, self._sync_batchnorm = size, sync_batchnorm
        self._turn, self._failed = 0, False
        self._changed = threading.Condition()
        self._given: dict[int, tuple[str, Any]] = {}

    def run(self, function: Callable[[Together], Result]) -> list[Result]:
        """Call the function with what each process sees of them all; return the results in order."""
        results: dict[int, Result] = {}
        errors: list[BaseException] = []
        dtype = torch.get_default_dtype()

        def work(rank: int) -> None:
            try:
                self._wait_for_turn(rank)
                torch.set_default_dtype(dtype)
                results[rank] = function(Together(rank, self._size, _Seat(self, rank), self._sync_batchnorm))
                self.exchange(rank, "end", None)
            except _StoppedError:
                pass
            except BaseException as error:
                errors.append(error)
                with self._changed:
                    self._failed = True
                    self._changed.notify_all()
            else:
                self._pass_on(rank)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self._size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[rank] for rank in range(self._size)]

    def exchange(self, rank: int, kind: str, value: Any) -> list[Any]:
        """Give a value; return those of all processes when all have given theirs."""
        self._given[rank] = kind, value
        self._pass_on(rank)
        # everyone after this process gives theirs before it is its turn again
        self._wait_for_turn(rank)
        kinds = {self._given[other][0] for other in range(self._size)}
        if len(kinds) > 1:
            raise OutOfStepError(
                f"the processes exchange different things at the same time: {', '.join(sorted(kinds))}"
            )
        values = [self._given[other][1] for other in range(self._size)]
        if rank == self._size - 1:
            self._given = {}
        self._pass_on(rank)
        self._wait_for_turn(rank)
        return values

    def _pass_on(self, rank: int) -> None:
        with self._changed:
            self._turn = (rank + 1) % self._size
            self._changed.notify_all()

    def _wait_for_turn(self, rank: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._turn == rank)
            if self._failed:
                raise _StoppedError


class _Seat:
    """One process's `Group`."""

    def __init__(self, turns: InTurns, rank: int):
        self._turns, self._rank = turns, rank

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        """See `Group.begin_sum`."""
        tensor.copy_(self._all("sum", tensor).sum(0))
        return lambda: None

    def maximise(self, tensor: Tensor) -> None:
        """See `Group.maximise`."""
        tensor.copy_(self._all("maximum", tensor).amax(0))

    def broadcast(self, value: Any) -> Any:
        """See `Group.broadcast`."""
        return self._turns.exchange(self._rank, "object", value)[0]

    def _all(self, kind: str, tensor: Tensor) -> Tensor:
        given: Sequence[Tensor] = self._turns.exchange(
            self._rank, f"{kind} of {tuple(tensor.shape)}", tensor.detach().clone()
        )
        return torch.stack(list(given)).to(tensor.dtype)
