"""Builds the guard of a bot from its configuration: who reads, who keeps, who judges."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.credentials import ENV_KEY, ENV_SECRET, Credentials, find_credentials
from freqtrade_isolated_margin.binance.reader import AccountsReader, Reader
from freqtrade_isolated_margin.errors import CredentialsError, SettingsError
from freqtrade_isolated_margin.guard.guard import Guard
from freqtrade_isolated_margin.guard.judge import say_once
from freqtrade_isolated_margin.guard.monitor import Monitor
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

if TYPE_CHECKING:
    from freqtrade_isolated_margin.history.asking import History
    from freqtrade_isolated_margin.history.follower import Whose
    from freqtrade_isolated_margin.hosts.candles import LiveCandles

A = TypeVar("A", bound=IsolatedMarginAdapter)

# What FreqUI shows of a pair: what Binance sends at once, and what indicators need before.
_CANDLES = 1500
# What was read is not stored meanwhile, and followers wait for it.
_RECALL_SECONDS = 2.0


def exchange_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration's exchange section with the keys that its user wrote.

    freqtrade empties the one that it hands on (`FreqtradeBot.__init__`) and keeps a copy of the original.
    """
    original = config.get("original_config") or {}
    section: Mapping[str, Any] = original.get("exchange") or config.get("exchange") or {}
    return section


def credentials_of(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Credentials | None:
    """Return the credentials for a bot with this configuration. Raises as `find_credentials`."""
    return find_credentials(os.environ if environ is None else environ, exchange_section(config))


def bot_name(config: Mapping[str, Any]) -> str:
    """Return the name under which the history has the bot's decisions."""
    return str(config.get("bot_name") or "freqtrade")[:64]


def own_key_id(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> str | None:
    """Return the id under which the history has the bot's own accounts; None without a key.

    It is that of its key, or of the bot where its accounts are simulated.
    """
    from freqtrade_isolated_margin.history.writing import key_id  # noqa: PLC0415 - for those with a history

    if is_simulated(config):
        return key_id(f"simulated by {bot_name(config)}")
    try:
        credentials = credentials_of(config, environ)
    except CredentialsError:
        return None
    return key_id(credentials.key) if credentials else None


def is_simulated(config: Mapping[str, Any]) -> bool:
    """Whether the bot's margin accounts are simulated: it trades in them, but dry."""
    section = config.get(SECTION)
    trading = section.get("trading") if isinstance(section, Mapping) else None
    enabled = trading.get("enabled") if isinstance(trading, Mapping) else None
    return enabled is True and bool(config.get("dry_run"))


def check_funding(config: Mapping[str, Any], settings: Settings) -> None:
    """Refuse borrowed entries of a futures bot: it cannot place them in a margin account.

    :raises SettingsError: for such a bot.
    """
    if settings.borrows and str(config.get("trading_mode", "spot")) == "futures":
        raise SettingsError("isolated_margin.entry_funding: 'borrowed' is impossible for a futures bot")


def build_adapter(
    credentials: Credentials, settings: Settings, config: Mapping[str, Any]
) -> IsolatedMarginAdapter:
    """Build the adapter that reads for a bot with this configuration. Raises as `build`."""
    return build(IsolatedMarginAdapter, credentials, settings, config)


def build(kind: type[A], credentials: Credentials, settings: Settings, config: Mapping[str, Any]) -> A:
    """Build an adapter of some kind for a bot with this configuration.

    :raises SettingsError: where ccxt does not take the bot's ``ccxt_config``, or cannot ask with it.
    """
    try:
        return kind(
            credentials,
            recv_window=settings.recv_window,
            weight_budget=settings.weight_budget,
            exchange=exchange_section(config),
        )
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - ccxt checks nothing, so that anything may come of it
        raise SettingsError(
            f"exchange.ccxt_config: ccxt cannot be set up with it ({type(error).__name__})"
        ) from None


def reading_credentials(
    config: Mapping[str, Any], settings: Settings, environ: Mapping[str, str] | None = None
) -> Credentials:
    """Return the credentials to read the exchange with, once ccxt has taken them.

    :raises CredentialsError: where there are none, or half of a pair.
    :raises SettingsError: as `build`.
    """
    credentials = credentials_of(config, environ)
    if credentials is None:
        raise CredentialsError(
            "isolated_margin: no API key to read the margin accounts with. Set the environment variables "
            f"{ENV_KEY} and {ENV_SECRET}, or exchange.key and exchange.secret of a bot on binance, or set "
            '"isolated_margin": {"enabled": false}'
        )
    # Once now, so that what is impossible ends the start.
    build_adapter(credentials, settings, config).close()
    return credentials


def build_guard(
    config: Mapping[str, Any],
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    candles: LiveCandles | None = None,
    make_reader: Callable[[], AccountsReader] | None = None,
) -> Guard:
    """Build the guard of a bot that trades live or dry with this configuration.

    `candles` keep what the bot's charts show, if they are wanted. `make_reader` is for accounts that are
    read elsewhere than the settings say.

    :raises CredentialsError: where there are no credentials, or half of a pair.
    :raises SettingsError: where the settings do not fit the bot.
    :raises HistoryError: where the history's database cannot be used at all.
    """
    # Here, since the commands that read once need no database.
    from freqtrade_isolated_margin.history.asking import open_history  # noqa: PLC0415
    from freqtrade_isolated_margin.history.follower import Whose  # noqa: PLC0415
    from freqtrade_isolated_margin.history.recorder import Recorder  # noqa: PLC0415

    check_funding(config, settings)
    whose = Whose(settings.history.keys)
    if make_reader:
        key = own_key_id(config, environ)
    else:
        make_reader, key = _source(config, settings, whose, environ)
    recorder = None
    if settings.history.enabled:
        if key:
            say_once(f"The isolated margin accounts are stored in the history under the key id {key}.")
        recorder = Recorder(
            open_history(settings.history, config, environ),
            key,
            bot_name(config),
            float(settings.history.retention_days),
            whose=whose,
            want=lambda pairs: monitor.want(pairs),  # noqa: PLW0108 - not there yet
            recall=lambda history: _recall(
                history,
                candles,
                monitor.own_pairs,
                # A follower's are known only to the history.
                lambda: (key, *settings.history.keys) if key else whose.keys(history),
            ),
        )
    monitor = Monitor(
        make_reader,
        float(settings.refresh_seconds),
        borrowed=settings.borrows or settings.trading.enabled,
        observers=[observer for observer in (recorder, candles) if observer],
    )
    return Guard(settings, monitor, recorder, candles)


def _source(
    config: Mapping[str, Any], settings: Settings, whose: Whose, environ: Mapping[str, str] | None
) -> tuple[Callable[[], AccountsReader], str | None]:
    """Return what makes a reader, and the id of the key that it reads with; None where it follows."""
    from freqtrade_isolated_margin.history.asking import open_history  # noqa: PLC0415
    from freqtrade_isolated_margin.history.follower import HistoryReader  # noqa: PLC0415
    from freqtrade_isolated_margin.history.writing import key_id  # noqa: PLC0415

    if settings.source == "history":
        # Once now, so that what is impossible stops the start; below as well.
        open_history(settings.history, config, environ)

        def make_follower() -> HistoryReader:
            return HistoryReader(open_history(settings.history, config, environ), whose)

        return make_follower, None
    credentials = reading_credentials(config, settings, environ)

    def make_reader() -> Reader:
        return Reader(build_adapter(credentials, settings, config))

    return make_reader, key_id(credentials.key)


def _recall(
    history: History,
    candles: LiveCandles | None,
    pairs: Iterable[str],
    keys: Callable[[], Sequence[str]],
) -> bool:
    """Show in the charts what was stored before, pair by pair; False where some are left for the next time.

    :raises HistoryError: where it cannot be read.
    """
    missing = candles.unrecalled(pairs) if candles else []
    if not candles or not missing:
        return True
    own = keys()
    until = time.monotonic() + _RECALL_SECONDS
    while missing and time.monotonic() < until:
        candles.recall(history, own, missing.pop(), _CANDLES)
    return not missing
