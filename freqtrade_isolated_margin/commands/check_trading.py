"""What `check` says of a bot that trades in the margin accounts themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from freqtrade_isolated_margin.account.records import PairAccount
from freqtrade_isolated_margin.binance.adapter import IsolatedMarginAdapter
from freqtrade_isolated_margin.binance.clock import moment
from freqtrade_isolated_margin.binance.reader import Snapshot
from freqtrade_isolated_margin.errors import IsolatedMarginError
from freqtrade_isolated_margin.history.asking import open_history
from freqtrade_isolated_margin.history.tables import NoHistoryError
from freqtrade_isolated_margin.hosts.wiring import bot_name, own_key_id
from freqtrade_isolated_margin.rules.decide import plain
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair
from freqtrade_isolated_margin.trading.journal import Deal, Journal
from freqtrade_isolated_margin.trading.requirements import check_configuration, missing_permissions


class Note(NamedTuple):
    """One line: whether the bot can go on with it, how it is, and what to do."""

    ok: bool
    found: str
    advice: str = ""


def trading_notes(
    adapter: IsolatedMarginAdapter, settings: Settings, config: Mapping[str, Any], snapshot: Snapshot
) -> Iterator[Note]:
    """Yield what the start of such a bot looks at, and what is in the accounts.

    :raises IsolatedMarginError: where the exchange cannot be asked.
    """
    try:
        check_configuration(config)
    except IsolatedMarginError as error:
        yield Note(False, str(error))
        return
    if config.get("dry_run"):
        yield Note(True, "the bot trades dry, in simulated accounts")
        return
    yield _permissions(adapter, settings)
    yield _burns(adapter)
    yield from _rates(adapter, snapshot)
    yield from _accounts(settings, config, snapshot)


def _permissions(adapter: IsolatedMarginAdapter, settings: Settings) -> Note:
    moves = settings.trading.collateral == "transfer"
    missing = missing_permissions(adapter.fetch_restrictions(), moves=moves)
    if missing:
        return Note(False, f"the key lacks {', '.join(missing)}", "allow it at Binance")
    return Note(True, "the key may trade on margin" + (" and move collateral" if moves else ""))


def _burns(adapter: IsolatedMarginAdapter) -> Note:
    burning = [name for name, burns in adapter.fetch_burns().items() if burns]
    if burning:
        return Note(
            False, f"fees or interest are paid in BNB ({', '.join(burning)})", "switch it off at Binance"
        )
    return Note(True, "fees and interest are paid in the assets themselves")


def _rates(adapter: IsolatedMarginAdapter, snapshot: Snapshot) -> Iterator[Note]:
    rates: dict[str, str] = {}
    for symbol in sorted({symbol for symbol in snapshot.symbols.values() if symbol}):
        for asset, rate in adapter.fetch_rates(symbol).items():
            rates[asset] = plain(rate * 100, 4)
    if rates:
        told = ", ".join(f"{asset} {rate} %" for asset, rate in sorted(rates.items()))
        yield Note(True, f"a day of a loan costs: {told}")


def _accounts(settings: Settings, config: Mapping[str, Any], snapshot: Snapshot) -> Iterator[Note]:
    """Yield the accounts that are in use, and what is in those that are not."""
    deals: dict[str, Deal] = {}
    try:
        with closing(open_history(settings.history, config)) as history:
            history.check()
            journal = Journal(history, own_key_id(config) or "", bot_name(config))
            deals = {deal.pair: deal for deal in journal.open_deals()}
    except NoHistoryError:
        pass
    except IsolatedMarginError as error:
        yield Note(False, f"the journal of deals cannot be read: {error}", "no entry is placed without it")
        return
    for deal in deals.values():
        since = f"{moment(deal.opened_at):%Y-%m-%d %H:%M:%S}"
        if deal.trouble:
            yield Note(False, f"{deal.pair}: {deal.trouble}", "entries into the pair are refused until then")
        elif deal.doubtful:
            yield Note(False, f"{deal.pair}: a step of {since} UTC is in doubt", "the bot asks when it runs")
        else:
            yield Note(True, f"{deal.pair}: its account is in use since {since} UTC")
    moves = settings.trading.collateral == "transfer"
    for pair, row in sorted(snapshot.rows.items()):
        if spot_pair(pair) in deals or not isinstance(row, PairAccount):
            continue
        left = _left(row, moves=moves)
        if left:
            yield Note(
                False, f"{pair}: {left}, and no deal of this bot; its entries are refused", "settle it"
            )


def _left(account: PairAccount, *, moves: bool) -> str:
    """Say what an account owes, or holds where only a bot's own collateral may be."""
    for asset in (account.base_asset, account.quote_asset):
        if asset.debt:
            return f"it owes {asset.debt:f} {asset.asset}"
    for asset in (account.base_asset, account.quote_asset) if moves else ():
        if asset.total_asset:
            return f"it holds {asset.total_asset:f} {asset.asset}"
    return ""
