"""Finding the way to train that suits some data: `fit` does what ``reweight fit`` does."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reweight_fit.fitting import Fitted, fit

_LAZY = {"Fitted": "reweight_fit.fitting", "fit": "reweight_fit.fitting"}

__all__ = ["Fitted", "fit"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
