"""`freqtrade-isolated-margin plot`: a pair's account over time, as a page or a picture."""

from __future__ import annotations

import argparse
import math
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.clock import milliseconds, moment
from freqtrade_isolated_margin.commands.chart import LOOKS, Chart, Look, Mark, Shade
from freqtrade_isolated_margin.commands.configuration import load_config, load_settings
from freqtrade_isolated_margin.commands.periods import parse_since
from freqtrade_isolated_margin.commands.terminal import busy
from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.history.asking import History, Recorded, open_history
from freqtrade_isolated_margin.history.blocks import STANDS_MS, decisions_of
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.hosts.wiring import bot_name, own_key_id
from freqtrade_isolated_margin.rules.decide import Outcome
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair

EXIT_DONE = 0
MOST_POINTS = 2000
"""So many moments are drawn at most: more than a screen is wide."""

_KINDS = {".html": "html", ".htm": "html", ".png": "png"}
# Another machine's clock may be a little ahead of this one's.
_AHEAD_MS = 15 * 60 * 1000


# ----- the command


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    pair = spot_pair(arguments.pair)
    path = _asked_path(arguments.output)
    since = parse_since(arguments.since, datetime.now(UTC))
    config = load_config(arguments)
    if arguments.db_url:
        config["db_url"] = arguments.db_url
    settings = load_settings(config, arguments.strategy)
    path = path or _default_path(config, pair)
    with busy("Reading the history"):
        chart = load_chart(config, settings, pair, since)
    with busy("Drawing"):
        _draw(chart, path, LOOKS[arguments.theme])
    print(path)  # noqa: T201 - the command's output
    return EXIT_DONE


def _asked_path(output: str | None) -> Path | None:
    path = Path(output) if output else None
    if path and path.suffix.lower() not in _KINDS:
        raise SettingsError(f"-o {path.name!r} must end in .html or .png")
    return path


def _default_path(config: Mapping[str, Any], pair: str) -> Path:
    folder = Path(config.get("user_data_dir") or "user_data") / "plot"
    return folder / f"isolated-margin-{pair.replace('/', '_')}.html"


def _draw(chart: Chart, path: Path, look: Look) -> None:
    kind = _KINDS[path.suffix.lower()]
    try:
        if kind == "html":
            from freqtrade_isolated_margin.commands.plot_html import draw  # noqa: PLC0415 - each needs a library of its own
        else:
            from freqtrade_isolated_margin.commands.plot_png import draw  # noqa: PLC0415
    except ImportError as error:
        needed = "plotly" if kind == "html" else "matplotlib"
        raise SettingsError(
            f"a .{kind} file needs {needed}, which cannot be loaded ({type(error).__name__}): "
            "pip install 'freqtrade-isolated-margin[plot]'"
        ) from None
    drawn = draw(chart, look)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({type(error).__name__})") from None


# ----- what is drawn


def load_chart(config: Mapping[str, Any], settings: Settings, pair: str, since: int) -> Chart:
    """Return what there is to draw of a pair from `since`, in milliseconds, to the newest read.

    :raises SettingsError: where the history's URL is impossible.
    :raises HistoryError: where the history cannot be read, or has nothing of the pair.
    """
    if not settings.history.enabled:
        raise HistoryError('the history is off ("history": false)')
    history = open_history(settings.history, config)
    try:
        keys = history.keys(settings.history.keys, own_key_id(config))
        # Not what a clock that was wrong has put far into the future.
        span = history.span(keys, milliseconds(datetime.now(UTC)) + _AHEAD_MS)
        if span is None:
            raise HistoryError("the history database holds no accounts yet")
        start, end = max(since, span[0]), span[1]
        if start > end:
            raise HistoryError(f"the history ends at {_written(end)}, before {_written(since)} (--since)")
        times = _grid(start, end)
        recorded = history.as_of(pair, times, float(settings.max_age_seconds), keys)
        accounts = [_account(known) for known in recorded]
        if not any(accounts):
            others = sorted(
                {name for name, _ in history.accounts([], keys, end - STANDS_MS, end + 1)} - {pair}
            )
            hint = f"; at its end it has {', '.join(others)}" if others else ""
            raise HistoryError(
                f"the history has no account of {pair} from {_written(start)} to {_written(end)}{hint}"
            )
        shades = _shades(history, keys, pair, times, bot_name(config))
    finally:
        history.close()
    level = settings.rules_for(pair).margin_level
    return Chart(
        pair=pair,
        times=times,
        index_price=[float(account.index_price) if account else None for account in accounts],
        liquidation_price=[_liquidation_price(account) for account in accounts],
        margin_level=[
            float(account.margin_level) if account and account.can_be_liquidated else None
            for account in accounts
        ],
        block_below=float(level.block_below),
        full_above=float(level.full_above),
        shades=shades,
        marks=_marks(config, pair, start, end),
    )


def _written(at: int) -> str:
    return f"{moment(at):%Y-%m-%d %H:%M} UTC"


def _grid(start: int, end: int) -> list[int]:
    """Return evenly spaced moments, the newest among them, not more than `MOST_POINTS`."""
    step = max(math.ceil((end - start) / (MOST_POINTS - 1)), 1000)
    return list(range(end, start - 1, -step))[::-1]


def _account(recorded: Recorded | None) -> PairAccount | None:
    row = recorded.row if recorded else None
    return row if isinstance(row, PairAccount) and not row.is_absent else None


def _liquidation_price(account: PairAccount | None) -> float | None:
    price = account.liquidation_price if account else None
    return None if price is None else float(price)


def _shades(history: History, keys: Sequence[str], pair: str, times: Sequence[int], bot: str) -> list[Shade]:
    """Return when `decisions_of` the bot shrank or blocked entries, in order and apart."""
    start, end = times[0], times[-1]
    stood: list[Shade] = []
    open_: dict[int, Shade] = {}
    for decision in decisions_of(history, keys, pair, start - STANDS_MS, end + 1, bot):
        before = open_.pop(decision.session_id, None)
        if before:
            stood.append(before._replace(end=min(decision.at, before.end)))
        open_[decision.session_id] = Shade(decision.at, decision.at + STANDS_MS, Outcome(decision.outcome))
    stood += open_.values()
    # What is closer than two moments of the grid cannot be told apart.
    blur = times[1] - times[0] if len(times) > 1 else 0
    within = [shade._replace(start=max(shade.start, start), end=min(shade.end, end)) for shade in stood]
    blocked = _joined((shade for shade in within if shade.outcome is Outcome.BLOCK), blur)
    shrunk = _joined((shade for shade in within if shade.outcome is Outcome.SHRINK), blur)
    return sorted([*blocked, *_without(shrunk, blocked)])


def _joined(shades: Iterable[Shade], blur: int) -> list[Shade]:
    joined: list[Shade] = []
    for shade in sorted(shades):
        if shade.start >= shade.end:
            continue
        if joined and shade.start - joined[-1].end <= blur:
            joined[-1] = joined[-1]._replace(end=max(joined[-1].end, shade.end))
        else:
            joined.append(shade)
    return joined


def _without(shades: Iterable[Shade], others: Sequence[Shade]) -> Iterable[Shade]:
    """Yield the parts of `shades` outside of `others`, which are in order and apart."""
    ends = [other.end for other in others]
    for shade in shades:
        start = shade.start
        for other in others[bisect_left(ends, start) :]:
            if other.start >= shade.end:
                break
            if other.start > start:
                yield shade._replace(start=start, end=other.start)
            start = max(start, other.end)
        if start < shade.end:
            yield shade._replace(start=start)


# ----- the bot's orders


def _marks(config: Mapping[str, Any], pair: str, start: int, end: int) -> list[Mark]:
    """Return the bot's filled orders; none, and a word of why, where its database cannot be read."""
    try:
        return list(_orders(config, pair, start, end))
    except Exception as error:  # noqa: BLE001 - whatever its database lacks, the account can be shown
        why = f"the bot's trades cannot be shown ({type(error).__name__})"
        print(f"warning: {why}", file=sys.stderr)  # noqa: T201 - the command's output
        return []


def _orders(config: Mapping[str, Any], pair: str, start: int, end: int) -> Iterable[Mark]:
    from freqtrade.constants import DEFAULT_DB_DRYRUN_URL, DEFAULT_DB_PROD_URL  # noqa: PLC0415 - takes seconds
    from freqtrade.persistence import Order, Trade  # noqa: PLC0415
    from sqlalchemy import NullPool, create_engine, select  # noqa: PLC0415
    from sqlalchemy.engine import make_url  # noqa: PLC0415

    url = config.get("db_url")
    # As freqtrade chooses it (`Configuration._process_trading_options`).
    if config.get("dry_run", True) and url in (None, DEFAULT_DB_PROD_URL):
        url = DEFAULT_DB_DRYRUN_URL
    parsed = make_url(url or DEFAULT_DB_PROD_URL)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or not Path(parsed.database).is_file():
            return
        # Read-only, so that a running bot's database is safe from us.
        file = quote(str(Path(parsed.database).resolve()))
        parsed = make_url(f"sqlite:///file:{file}?mode=ro&uri=true")
    filled = Order.order_filled_date, Order.order_date, Order.average, Order.ft_price
    orders = (
        select(Order.ft_order_side, Trade.is_short, *filled)
        .join(Trade, Trade.id == Order.ft_trade_id)
        .where(Order.ft_pair.in_([pair]) | Order.ft_pair.startswith(f"{pair}:", autoescape=True))
        .where(Order.filled > 0)
        .order_by(Order.id)
    )
    engine = create_engine(parsed, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            for side, is_short, filled_at, ordered_at, average, price in connection.execute(orders):
                at = milliseconds((filled_at or ordered_at).replace(tzinfo=UTC))
                if start <= at <= end:
                    enters = side == ("sell" if is_short else "buy")
                    yield Mark(at, float(average or price), "entry" if enters else "exit")
    finally:
        engine.dispose()
