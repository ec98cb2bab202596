"""What the commands read the accounts from, and of which pairs: the exchange, or what another bot stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row
from freqtrade_isolated_margin.binance.credentials import Credentials
from freqtrade_isolated_margin.binance.reader import AccountsReader, Reader, Snapshot
from freqtrade_isolated_margin.commands.configuration import has_dynamic_pairs, listed_pairs, whitelist
from freqtrade_isolated_margin.hosts.wiring import (
    build_adapter,
    is_simulated,
    own_key_id,
    reading_credentials,
)
from freqtrade_isolated_margin.rules.settings import Settings

if TYPE_CHECKING:
    from freqtrade_isolated_margin.history.asking import History
    from freqtrade_isolated_margin.history.follower import Whose


def kind_of(row: Row | None) -> str:
    """Say whether there is an account, in one word: active, absent or unreadable."""
    if isinstance(row, Absent) or (isinstance(row, PairAccount) and row.is_absent):
        return "absent"
    return "active" if isinstance(row, PairAccount) else "unreadable"


class Pairs:
    """Which pairs are shown: those that were asked for, or the whitelist, or all that have an account."""

    def __init__(self, config: dict[str, Any], asked: Sequence[str] = ()) -> None:
        self._config = config
        self.listed = listed_pairs(config)
        self._asked = list(dict.fromkeys(asked))
        self._dynamic = not asked and has_dynamic_pairs(config)
        # Without markets an expression in the whitelist stands for nothing yet.
        self.shown = self._asked or ([] if self._dynamic else whitelist(config, ()))

    def choose(self, markets: Collection[str]) -> list[str] | None:
        """Return which pairs to read, now that the markets are known; None for all."""
        if self._dynamic:
            return None
        self.shown = self._asked or whitelist(self._config, markets)
        return self.shown

    def found(self, snapshot: Snapshot) -> None:
        """Take in which pairs have accounts."""
        if self._dynamic:
            self.shown = sorted(pair for pair, row in snapshot.rows.items() if kind_of(row) != "absent")


def reader_maker(
    config: dict[str, Any],
    settings: Settings,
    pairs: Pairs,
    environ: Mapping[str, str] | None = None,
) -> Callable[[], AccountsReader]:
    """Return what makes a reader of the accounts of `pairs`, as `source` says.

    :raises CredentialsError: where the exchange is to be read without a key.
    :raises SettingsError: where the settings do not fit.
    :raises HistoryError: where the history's database cannot be used at all.
    """
    simulated = is_simulated(config)
    if settings.source == "history" or simulated:
        # Who reads the exchange needs no database.
        from freqtrade_isolated_margin.history.asking import open_history  # noqa: PLC0415
        from freqtrade_isolated_margin.history.follower import Whose  # noqa: PLC0415

        # Once now, so that what is impossible ends the command.
        open_history(settings.history, config, environ).close()
        whose = Whose((own_key_id(config, environ) or "",) if simulated else settings.history.keys)
        return lambda: StoredReader(open_history(settings.history, config, environ), whose, pairs)
    credentials = reading_credentials(config, settings, environ)
    return lambda: _ExchangeReader(credentials, settings, config, pairs)


class _ExchangeReader:
    """Reads the exchange; which pairs are meant can be told only when it has told its markets."""

    def __init__(
        self, credentials: Credentials, settings: Settings, config: dict[str, Any], pairs: Pairs
    ) -> None:
        self._adapter = build_adapter(credentials, settings, config)
        self._reader = Reader(self._adapter)
        self._settings = settings
        self._pairs = pairs

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:  # noqa: ARG002
        """Read the accounts of the pairs that are shown.

        :raises SettingsError: where the settings name a pair that the exchange does not have.
        :raises IsolatedMarginError: as `Reader.read`.
        """
        self._adapter.load_markets()
        markets = self._adapter.pairs().values()
        self._settings.check_pairs([*markets, *self._pairs.listed])
        snapshot = self._reader.read(self._pairs.choose(markets), borrowed=borrowed)
        self._pairs.found(snapshot)
        return snapshot

    @property
    def asking_since(self) -> float | None:
        """When the request that is under way was sent, on the monotonic clock; None if there is none."""
        return self._reader.asking_since

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()


class StoredReader:
    """Reads what another bot stores; which pairs there are is told by what it has stored of late."""

    def __init__(self, history: History, whose: Whose, pairs: Pairs) -> None:
        from freqtrade_isolated_margin.history.follower import HistoryReader  # noqa: PLC0415 - with the history only

        # Who only looks must not make others read more.
        self._reader = HistoryReader(history, whose, asks=False, choose=pairs.choose)
        self._pairs = pairs

    def read(self, pairs: Collection[str] | None = None, *, borrowed: bool = False) -> Snapshot:  # noqa: ARG002
        """Read the accounts of the pairs that are shown. Raises as `HistoryReader.read`."""
        snapshot = self._reader.read(borrowed=borrowed)
        self._pairs.found(snapshot)
        return snapshot

    @property
    def asking_since(self) -> float | None:
        """When the question that is under way was asked, on the monotonic clock; None if there is none."""
        return self._reader.asking_since

    def close(self) -> None:
        """Give back the connections."""
        self._reader.close()
