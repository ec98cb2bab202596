"""Guards freqtrade's entries with the state of Binance isolated margin accounts."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .account.records import PairAccount as PairAccount
    from .binance.adapter import IsolatedMarginAdapter as IsolatedMarginAdapter
    from .hosts.columns import COLUMNS as COLUMNS
    from .hosts.columns import PLOT_CONFIG as PLOT_CONFIG
    from .hosts.mixin import IsolatedMarginMixin as IsolatedMarginMixin
    from .hosts.protection import MarginLevelGuard as MarginLevelGuard
    from .rules.decide import EntryDecision as EntryDecision

__version__ = "0.1.0"

# Loaded when first used: a command must not pay for freqtrade's strategy module.
_MODULES = {
    "COLUMNS": "hosts.columns",
    "EntryDecision": "rules.decide",
    "IsolatedMarginAdapter": "binance.adapter",
    "IsolatedMarginMixin": "hosts.mixin",
    "MarginLevelGuard": "hosts.protection",
    "PLOT_CONFIG": "hosts.columns",
    "PairAccount": "account.records",
}
__all__ = sorted(_MODULES)  # noqa: PLE0605 - a list of strings


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
