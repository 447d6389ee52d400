"""Leases: which of several processes, on any machines that share a folder, may do a piece of work in it."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from reweight_core import UserError

RENEW_SECONDS = 5.0
"""Seconds after which a lease is renewed, and after which those of others are looked at again."""

LAPSE_SECONDS = 60.0
"""Seconds after which a lease that nobody has renewed is another's to take."""


def with_sleep() -> float:
    """Return the seconds since any moment, those too in which the machine slept, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@attrs.define(eq=False)
class Lease:
    """A lease that this process holds.

    Attributes:
        work: what may be done, a path beside which the lease's file lies.
        generation: how often the lease was taken since it was last given back, from 1.
        holder: who holds it, for people; no other lease has the same.
        renewals: how often it was renewed.
        renewed: when it was renewed, by `Leases.own_clock`.
    """

    work: Path
    generation: int
    holder: str
    renewed: float
    renewals: int = 0

    @property
    def file(self) -> Path:
        """The file that stands for it."""
        return _file(self.work, self.generation)

    @property
    def text(self) -> str:
        """What the file holds: something else after every renewal, and always as long."""
        return f"{self.holder} {self.renewals:012}\n"


class Leases:
    """Takes, renews and gives back leases, and watches those of others.

    The newest file ``WORK.lease-N`` is the lease. It is taken by making the next one, which only one process can.
    Nobody compares clocks: a lease has lapsed for whoever has seen it unchanged for `LAPSE_SECONDS`.

    Args:
        clock: tells the seconds since any moment; never goes back. Others' leases are watched by it, so that a machine
            that slept sees again whether they are renewed.
        own_clock: likewise for the leases held here, with the time in which the machine slept.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, own_clock: Callable[[], float] = with_sleep
    ) -> None:
        self._clock, self.own_clock = clock, own_clock
        # what each file of another held, and when that was first seen
        self._seen: dict[Path, tuple[str, float]] = {}

    def take(self, work: Path) -> Lease | None:
        """Take the lease of some work; None if another has it, as far as can be known yet.

        Raises:
            UserError: if its folder cannot be written to.
        """
        try:
            newest = _newest(work)
            before = _file(work, newest)
            if newest and not self._has_lapsed(before):
                return None
            holder = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
            lease = Lease(work, newest + 1, holder, self.own_clock())
            with open(lease.file, "x", encoding="utf-8"):
                pass
            try:
                lease.file.write_text(lease.text, encoding="utf-8")
            except OSError:
                # a full disk: a lease that says nothing would keep all others out
                lease.file.unlink()
                raise
            # its holder may have come back: a renewal looks for a newer lease after it has written, this looks for a
            # renewal after it has made the lease, so that not both can miss the other
            came_back = newest > 0 and _read(before) != self._seen[before][0]
            if came_back or _newest(work) > lease.generation:
                _remove(lease)
                return None
        except FileExistsError:
            return None
        except OSError as error:
            raise UserError(f"{work}: cannot be claimed ({error})") from error
        return lease

    def renew(self, lease: Lease) -> bool:
        """Renew a lease; return whether this process still holds it."""
        lease.renewals += 1
        try:
            # one that was removed is not made again, and another's is not written to
            with open(lease.file, "r+", encoding="utf-8") as file:
                if not file.read().startswith(lease.holder):
                    return False
                file.seek(0)
                file.write(lease.text)
            held = _newest(lease.work) == lease.generation
        except FileNotFoundError:
            return False
        except OSError:
            # the network may come back in time
            return self.own_clock() - lease.renewed < LAPSE_SECONDS
        lease.renewed = self.own_clock()
        return held

    def give_back(self, lease: Lease) -> None:
        """Give a lease back, also one that is lost; what others left of it when they died is removed with it."""
        with suppress(OSError):
            if _newest(lease.work) == lease.generation:
                for generation in range(1, lease.generation):
                    _file(lease.work, generation).unlink(missing_ok=True)
        # last, so that meanwhile nobody takes the work for free
        with suppress(OSError):
            _remove(lease)

    def was_renewed_after(self, moment: float, work: Path) -> bool:
        """Whether another process was seen to take or renew the lease after a moment of this clock."""
        try:
            newest = _newest(work)
        except OSError:
            return False
        since = self._unchanged_since(_file(work, newest)) if newest else None
        return since is not None and since > moment

    @contextmanager
    def held(self, work: Path) -> Iterator[None]:
        """Wait for the lease of some work, and hold it until the end."""
        while (lease := self.take(work)) is None:
            time.sleep(min(1.0, RENEW_SECONDS))
        try:
            with repeated(lambda: self.renew(lease)):
                yield
        finally:
            self.give_back(lease)

    def _has_lapsed(self, file: Path) -> bool:
        since = self._unchanged_since(file)
        return since is not None and self._clock() - since >= LAPSE_SECONDS

    def _unchanged_since(self, file: Path) -> float | None:
        """Return when a lease was first seen as it is, None if it cannot be read."""
        text = _read(file)
        if text is None:
            self._seen.pop(file, None)
            return None
        if file not in self._seen or self._seen[file][0] != text:
            self._seen[file] = text, self._clock()
        return self._seen[file][1]


@contextmanager
def repeated(renew: Callable[[], object]) -> Iterator[None]:
    """Call what renews leases every `RENEW_SECONDS`, in a thread, whatever this process does or waits for meanwhile."""
    over = threading.Event()

    def renewing() -> None:
        while not over.wait(RENEW_SECONDS):
            renew()

    thread = threading.Thread(target=renewing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_taken(work: Path) -> bool:
    """Whether somebody has the lease, or had it and died."""
    try:
        return _newest(work) > 0
    except OSError:
        return False


def look_again(folder: Path) -> None:
    """See what others have made in a folder: a network file system may answer from memory until one changes it."""
    with suppress(OSError):
        os.utime(folder)


def _file(work: Path, generation: int) -> Path:
    return work.with_name(f"{work.name}.lease-{generation}")


def _newest(work: Path) -> int:
    """Return the generation of the newest lease, 0 if there is none."""
    look_again(work.parent)
    pattern = re.compile(re.escape(work.name) + r"\.lease-(\d+)")
    return max((int(found[1]) for found in map(pattern.fullmatch, os.listdir(work.parent)) if found), default=0)


def _read(file: Path) -> str | None:
    # opened anew every time, which is when a network file system asks for what is new
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _remove(lease: Lease) -> None:
    if (_read(lease.file) or "").startswith(lease.holder):
        # who has a newer one may remove it too
        lease.file.unlink(missing_ok=True)
