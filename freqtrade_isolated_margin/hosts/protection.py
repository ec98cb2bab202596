"""`MarginLevelGuard`, a protection beside freqtrade's own.

freqtrade looks for protections in its own folder only, so this one becomes loadable when the strategy
that carries the mixin has its ``protections`` read (`make_loadable`).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

from freqtrade.exceptions import OperationalException
from freqtrade.plugins.protections import IProtection, ProtectionReturn
from freqtrade.resolvers import ProtectionResolver

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.hosts.strategy import GuardedStrategy

logger = logging.getLogger(__name__)


# ----- protections


class OwnProtections:
    """The strategy's own protections, unchanged; reading them makes `MarginLevelGuard` loadable."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __get__(self, instance: GuardedStrategy | None, owner: type) -> Any:
        # At this moment and not at import: hyperopt's workers get classes without running their modules.
        if instance is not None:
            make_loadable(instance)
        return self._inner.__get__(instance, owner) if hasattr(type(self._inner), "__get__") else self._inner


_SETTINGS = {"method", "stop_duration", "stop_duration_candles", "unlock_at"}
_DURATIONS = _SETTINGS - {"method"}


class MarginLevelGuard(IProtection):  # type: ignore[misc]
    """Locks a pair while its isolated margin account blocks entries.

    It takes the same decision as the mixin. freqtrade asks protections when a trade closes, and only
    then. Without a duration the lock lasts to the next candle, with one to its end.
    """

    has_global_stop = False
    has_local_stop = True

    def __init__(
        self, config: dict[str, Any], protection_config: dict[str, Any], strategy: GuardedStrategy
    ) -> None:
        unknown = set(protection_config) - _SETTINGS
        if unknown:
            raise OperationalException(
                f"MarginLevelGuard has no setting {', '.join(map(repr, sorted(unknown)))}; "
                f"allowed: {', '.join(sorted(_SETTINGS))}"
            )
        super().__init__(config, protection_config)
        self._lasts = not _DURATIONS.isdisjoint(protection_config)
        self._strategy = weakref.ref(strategy)

    def short_desc(self) -> str:
        """Return the line of freqtrade's start-up message."""
        lasting = self.unlock_reason_time_element if self._lasts else "to the next candle"
        return f"{self.name} - blocks pairs {lasting} by the state of their isolated margin accounts."

    def global_stop(
        self,
        date_now: datetime,  # noqa: ARG002 - the interface
        side: str,  # noqa: ARG002
        starting_balance: float,  # noqa: ARG002
    ) -> ProtectionReturn | None:
        """Return None: each pair has its own account."""
        return None

    def stop_per_pair(
        self,
        pair: str,
        date_now: datetime,
        side: str,
        starting_balance: float,  # noqa: ARG002 - the interface
    ) -> ProtectionReturn | None:
        """Return a lock where the pair's account blocks entries. Never raises: that would end the bot."""
        try:
            return self._stop(pair, date_now, Side(side))
        except Exception:
            logger.exception("MarginLevelGuard failed for %s; the mixin goes on guarding it.", pair)
            return None

    def _stop(self, pair: str, date_now: datetime, side: Side) -> ProtectionReturn | None:
        strategy = self._strategy()
        verdict = strategy.margin_lock(pair, side, date_now) if strategy else None
        if verdict is None:
            return None
        lock_side, rule = verdict
        # freqtrade rounds the end of a lock up to the next candle.
        until = self._end(date_now) if self._lasts else date_now
        return ProtectionReturn(
            lock=True, until=until, reason=f"{self.name}: {pair} {rule}", lock_side=lock_side
        )

    def _end(self, date_now: datetime) -> datetime:
        # The base class counts from the close of the newest of the trades that it is given.
        end: datetime = self.calculate_lock_end([_ClosedNow(date_now)])
        return end


class _ClosedNow:
    """All that `IProtection.calculate_lock_end` looks at in a trade."""

    def __init__(self, close_date: datetime) -> None:
        self.close_date = close_date


class _Loader:
    """Stands in for `ProtectionResolver.load_protection`: knows one more class, and asks the former."""

    def __init__(self, former: Callable[..., IProtection]) -> None:
        self.former = former
        self.strategy: weakref.ref[GuardedStrategy] | None = None

    def __call__(
        self, protection_name: str, config: dict[str, Any], protection_config: dict[str, Any]
    ) -> IProtection:
        strategy = self.strategy() if self.strategy else None
        if protection_name == MarginLevelGuard.__name__ and strategy is not None:
            return MarginLevelGuard(config, protection_config, strategy)
        return self.former(protection_name, config, protection_config)


def make_loadable(strategy: GuardedStrategy) -> None:
    """Make freqtrade find `MarginLevelGuard` for the protections of `strategy`."""
    loader = ProtectionResolver.load_protection
    if not isinstance(loader, _Loader):
        loader = _Loader(loader)
        ProtectionResolver.load_protection = loader
    loader.strategy = weakref.ref(strategy)
