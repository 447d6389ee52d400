"""Errors of the machine, a full memory or disk, and interrupts, told to the user in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from reweight_core.errors import InterruptedRun, LostProcessError, UserError, means_full_memory, reason


@contextmanager
def told_to_the_user(folder: Path | None = None) -> Iterator[None]:
    """Turn errors of the machine inside the block (full memory, a full disk) into `UserError`.

    Args:
        folder: the run's folder, if it was made before.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = _of_memory(error)
        if told is None:
            raise
        raise told from error
    except LostProcessError as error:
        if folder is not None and (folder / "checkpoints").exists():
            raise LostProcessError(f"{error}; reweight resume {folder} goes on from the last checkpoint") from error
        raise
    except BrokenPipeError:
        raise
    except (OSError, SafetensorError) as error:
        # safetensors has no class of its own for what the system says
        if folder is None or (isinstance(error, SafetensorError) and "I/O error" not in str(error)):
            raise
        raise UserError(f"{folder}: {error}; what was written before is kept") from error
    except InterruptedRun:
        # it says itself what is kept
        raise
    except KeyboardInterrupt as interrupt:
        if folder is not None and (folder / "summary.json").exists():
            interrupt.add_note(f"the run in {folder} is finished")
        elif folder is not None and (folder / "checkpoints").exists():
            interrupt.add_note(f"reweight resume {folder} goes on from the last checkpoint")
        elif folder is not None:
            interrupt.add_note(f"there is no checkpoint in {folder} yet")
        raise


def _of_memory(error: Exception) -> UserError | None:
    """Return what to tell of an error that means that memory is full; None for any other."""
    if str(error).startswith("DataLoader worker"):
        return UserError(
            "a process that reads images was killed (is memory or /dev/shm full?): lower --workers or --batch-size"
        )
    if means_full_memory(error):
        return UserError(f"memory is full: lower --batch-size, --meta-batch-size or the image size ({reason(error)})")
    return None
