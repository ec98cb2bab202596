"""One bot's guard: settings, monitor and verdicts, in the core's words.

It never raises where it is asked for a verdict: what goes wrong inside it is a refusal with a reason.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from .account import PairAccount
from .adapter import IsolatedMarginAdapter
from .credentials import ENV_KEY, ENV_SECRET, Credentials, find_credentials
from .errors import CredentialsError, SettingsError
from .margin import ONE, ZERO, Side
from .monitor import AccountsReader, Moment, Monitor, Reader, Snapshot
from .rules import EntryDecision, Outcome, Rule, decide
from .settings import Settings

if TYPE_CHECKING:
    from .columns import LiveCandles
    from .follower import Whose
    from .history import History
    from .recorder import Recorder

logger = logging.getLogger(__name__)


# How long an allowed order may be on its way into the account.
_ORDER_SECONDS = 5.0
# What FreqUI shows of a pair: what Binance sends at once, and what indicators need before.
_CANDLES = 1500
# What was read is not stored meanwhile, and followers wait for it.
_RECALL_SECONDS = 2.0


class Inside(threading.local):
    """Whether this thread is inside a callback of a strategy's own. Kept here: it cannot be pickled."""

    depth = 0

    @property
    def on(self) -> bool:
        """Whether it is."""
        return self.depth > 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_error: object) -> None:
        self.depth -= 1


inside = Inside()
inside_charts = Inside()


class Judge(Protocol):
    """Whoever gives verdicts to a strategy's callbacks."""

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:
        """Return what an entry into `pair` may be now."""

    def account(self, pair: str) -> PairAccount | None:
        """Return the pair's account if it can be judged now."""

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that a decision's largest stake leaves; False where it may be used already."""

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet."""


class StandIn:
    """A judge without an account: it gives everybody the same verdict."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        self.outcome = outcome
        self._why = why

    def decision(self, pair: str, side: Side, leverage: Decimal = ONE) -> EntryDecision:  # noqa: ARG002
        """Return the one verdict."""
        factor = ONE if self.outcome is Outcome.ALLOW else ZERO
        return EntryDecision.because(pair, side, factor, Rule.OFF, self._why)

    def account(self, pair: str) -> PairAccount | None:  # noqa: ARG002 - the protocol
        """Return None: there is no account."""
        return None

    def claim(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return True: there is nothing to use up."""
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:  # noqa: ARG002 - the protocol
        """Return False: nothing will change."""
        return False


class Guard:
    """Judges entries by the newest accounts, which a `Monitor` reads in the background."""

    def __init__(
        self,
        settings: Settings,
        monitor: Monitor,
        recorder: Recorder | None = None,
        candles: LiveCandles | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = monitor
        self.candles = candles
        self._recorder = recorder
        self._max_age = float(settings.max_age_seconds)
        self._verdicts: tuple[Snapshot | None, dict[tuple[str, Side, Decimal], EntryDecision]] = (None, {})
        self._unread_since: dict[str, Moment] = {}
        self._claimed: dict[str, Moment] = {}

    def start(self, pairs: Iterable[str]) -> None:
        """Begin to read the accounts of `pairs`."""
        self.monitor.watch(pairs)
        self.monitor.start()
        if self._recorder:
            self._recorder.start()

    def await_history(self, seconds: float) -> None:
        """Wait until what was stored before is known, at most so long."""
        if self._recorder and self.candles:
            self._recorder.wait_ready(seconds)

    def stop(self) -> None:
        """End reading, and store what is still to be stored."""
        self.monitor.stop()
        if self._recorder:
            self._recorder.stop()

    def adopt(self, settings: Settings) -> None:
        """Judge by the rules of `settings` from now on; how the accounts are read remains as it is."""
        self.settings = settings
        self._max_age = float(settings.max_age_seconds)
        self._verdicts = (None, {})
        if self.candles:
            self.candles.settings = settings

    def note(self, decision: EntryDecision, now: int) -> None:
        """Keep a decision, taken at `now` in milliseconds, for the history and the charts."""
        if self._recorder:
            self._recorder.decided(decision, now)
        if self.candles:
            self.candles.decided(decision, now)

    def decision(
        self, pair: str, side: Side, leverage: Decimal = ONE, *, now: Moment | None = None
    ) -> EntryDecision:
        """Return what an entry into `pair` may be now, or at a `now` that is just past. Never raises."""
        try:
            return self._decide(pair, side, leverage, now or self.monitor.now())
        except Exception:
            logger.exception("Judging an entry into %s failed; it is refused.", pair)
            why = "the account cannot be judged (an error of the guard, see the log)"
            return EntryDecision.because(pair, side, ZERO, Rule.UNREADABLE, why)

    def _decide(self, pair: str, side: Side, leverage: Decimal, now: Moment) -> EntryDecision:
        snapshot = self.monitor.snapshot
        key = (pair, side, leverage)
        judged, verdicts = self._verdicts
        # As long as the account is the same and not too old, so is the verdict.
        if snapshot and judged is snapshot and key in verdicts and self._is_young(pair, snapshot, now):
            return verdicts[key]
        reading = self.monitor.reading(pair, snapshot, now)
        rules = self.settings.rules_for(pair)
        if snapshot and pair not in snapshot.rows:
            # Asked about out of turn, as by /forceenter: the next read has it.
            self.monitor.also_watch(pair)
        if snapshot is None or not 0 <= reading.age_seconds <= self._max_age:
            return decide(pair, side, reading, rules, self._max_age, leverage)
        if judged is not snapshot:
            verdicts = {}
            self._verdicts = (snapshot, verdicts)
        verdicts[key] = decision = decide(pair, side, reading, rules, self._max_age, leverage)
        return decision

    def _is_young(self, pair: str, snapshot: Snapshot, now: Moment) -> bool:
        return 0 <= snapshot.asked_at_of(pair).age(now) <= self._max_age

    def account(self, pair: str, now: Moment | None = None) -> PairAccount | None:
        """Return the pair's account if there is one, it is readable and not too old."""
        snapshot = self.monitor.snapshot
        row = snapshot.rows.get(pair) if snapshot else None
        if snapshot is None or not isinstance(row, PairAccount) or row.is_absent:
            return None
        return row if self._is_young(pair, snapshot, now or self.monitor.now()) else None

    def claim(self, decision: EntryDecision) -> bool:
        """Use the room that the account leaves for a borrowed entry; False where it may be used already.

        An entry that was allowed is in the account only when it is read anew, so a reading is good for one.
        """
        snapshot, now = self.monitor.snapshot, Moment.now()
        last = self._claimed.get(decision.pair)
        if last and (
            snapshot is None
            or snapshot.asked_at_of(decision.pair).monotonic < last.monotonic + _ORDER_SECONDS
        ):
            return False
        self._claimed[decision.pair] = now
        return True

    def is_waiting(self, decision: EntryDecision) -> bool:
        """Whether `decision` refuses only because the first read is still to come, and may yet.

        For up to ``max_age_seconds`` such a refusal is no news: it locks and cancels nothing.
        """
        if decision.rule is not Rule.NOT_READ:
            self._unread_since.pop(decision.pair, None)
            return False
        now = Moment.now()
        return self._unread_since.setdefault(decision.pair, now).age(now) <= self._max_age


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
    """Return the id under which the history has the accounts of the bot's own key; None without a key."""
    from .history import key_id  # noqa: PLC0415 - for those with a history

    try:
        credentials = credentials_of(config, environ)
    except CredentialsError:
        return None
    return key_id(credentials.key) if credentials else None


def check_funding(config: Mapping[str, Any], settings: Settings) -> None:
    """Refuse borrowed entries of a futures bot: it cannot place them in a margin account.

    :raises SettingsError: for such a bot.
    """
    if settings.borrows and str(config.get("trading_mode", "spot")) == "futures":
        raise SettingsError("isolated_margin.entry_funding: 'borrowed' is impossible for a futures bot")


def build_adapter(
    credentials: Credentials, settings: Settings, config: Mapping[str, Any]
) -> IsolatedMarginAdapter:
    """Build the adapter that reads for a bot with this configuration.

    :raises SettingsError: where ccxt does not take the bot's ``ccxt_config``.
    """
    try:
        return IsolatedMarginAdapter(
            credentials,
            recv_window=settings.recv_window,
            weight_budget=settings.weight_budget,
            exchange=exchange_section(config),
        )
    except Exception as error:  # noqa: BLE001 - ccxt checks nothing, so that anything may come of it
        raise SettingsError(
            f"exchange.ccxt_config: ccxt cannot be set up with it ({type(error).__name__})"
        ) from None


def build_guard(
    config: Mapping[str, Any],
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    timeframe_seconds: int | None = None,
) -> Guard:
    """Build the guard of a bot that trades live or dry with this configuration.

    With a timeframe it also keeps what the bot's charts show.

    :raises CredentialsError: where there are no credentials, or half of a pair.
    :raises SettingsError: where the settings do not fit the bot.
    :raises HistoryError: where the history's database cannot be used at all.
    """
    # Here, since the commands that read once need no database.
    from .columns import LiveCandles  # noqa: PLC0415
    from .follower import Whose  # noqa: PLC0415
    from .history import open_history  # noqa: PLC0415
    from .recorder import Recorder  # noqa: PLC0415

    check_funding(config, settings)
    whose = Whose(settings.history.keys)
    make_reader, key = _source(config, settings, whose, environ)
    candles = None
    if settings.charts and timeframe_seconds:
        candles = LiveCandles(settings, timeframe_seconds, bot_name(config))
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
        borrowed=settings.borrows,
        observers=[observer for observer in (recorder, candles) if observer],
    )
    return Guard(settings, monitor, recorder, candles)


def _source(
    config: Mapping[str, Any], settings: Settings, whose: Whose, environ: Mapping[str, str] | None
) -> tuple[Callable[[], AccountsReader], str | None]:
    """Return what makes a reader, and the id of the key that it reads with; None where it follows."""
    from .follower import HistoryReader  # noqa: PLC0415
    from .history import key_id, open_history  # noqa: PLC0415

    if settings.source == "history":
        # Once now, so that what is impossible stops the start; below as well.
        open_history(settings.history, config, environ)

        def make_follower() -> HistoryReader:
            return HistoryReader(open_history(settings.history, config, environ), whose)

        return make_follower, None
    credentials = credentials_of(config, environ)
    if credentials is None:
        raise CredentialsError(
            "isolated_margin: no API key to read the margin accounts with. Set the environment variables "
            f"{ENV_KEY} and {ENV_SECRET}, or exchange.key and exchange.secret of a bot on binance, or set "
            '"isolated_margin": {"enabled": false}'
        )
    build_adapter(credentials, settings, config).close()

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


@cache
def say_once(message: str) -> None:
    """Log `message`, the first time only: the analyses start dozens of strategies in one process."""
    logger.info(message)
