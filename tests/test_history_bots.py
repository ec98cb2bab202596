"""Real bots that store, follow and chart the history."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bot import config_for, freqtrade
from postgresql import PostgreSQL

from freqtrade_isolated_margin.history import DEFAULT_FILE
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.settings import ENV_DB_URL

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]
ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"
HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
BAD = AccountSpec(base_free="12", quote_borrowed="1000")

STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    plot_config = {"main_plot": {"mine": {"color": "red"}}}

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_indicators(self, dataframe, metadata):
        dataframe["mine"] = dataframe["margin_level"] + 1
        return dataframe

    def plot_annotations(self, start_date, end_date, **kwargs):
        return [{"type": "area", "label": "mine", "start": start_date, "end": end_date}]
"""


@pytest.fixture
def exchange() -> Any:
    """Serve three pairs at a price of 100 with healthy accounts, and one without."""
    markets = [MarketSpec(pair, price="100") for pair in [*PAIRS, "ADA/USDT"]]
    with LocalExchange(scenario="calm", markets=markets) as exchange:
        for pair in PAIRS:
            exchange.set_account(pair, HEALTHY)
        exchange.set_account("XRP/USDT", BAD)
        exchange.remove_account("ADA/USDT")
        yield exchange


def test_followers_judge_as_their_reader_does_and_refuse_without_it(
    exchange: LocalExchange, tmp_path: Path, postgresql_server: PostgreSQL
) -> None:
    """Three bots without a key follow one that reads; what happens to it happens to all of them."""
    url = postgresql_server.new_database()
    times = {"refresh_seconds": 1, "max_age_seconds": 6}
    strategy = STRATEGY
    with ExitStack() as running:

        def start(name: str, pairs: list[str], *, key: bool, **section: Any) -> Any:
            (tmp_path / name).mkdir(exist_ok=True)
            config = config_for(exchange, pairs, isolated_margin={**times, **section}, bot_name=name)
            if not key:
                config["exchange"] |= {"key": "", "secret": ""}
            environment = {ENV_DB_URL: url}
            return running.enter_context(
                freqtrade(tmp_path / name, config, strategy, more_environment=environment)
            )

        reader = start("reader", PAIRS, key=True)
        reader.wait_for("XRP/USDT long: block")
        followers = [
            start("one", PAIRS, key=False, source="history"),
            # A pair that the reader itself does not trade, and stricter rules.
            start("two", ["BTC/USDT", "ADA/USDT"], key=False, source="history", without_account="block"),
            start("three", ["SOL/USDT"], key=False, source="history"),
        ]
        one, two, three = followers
        one.wait_for("XRP/USDT long: block: margin level 1.2")
        two.wait_for(r"ADA/USDT long: block: no isolated margin account \(without_account: block\)")
        assert one.wait_for_locks("XRP/USDT")
        for bot, pair in ((one, "BTC/USDT"), (two, "BTC/USDT"), (three, "SOL/USDT")):
            bot.wait_for(f"LIMIT_BUY has been fulfilled.*{pair}")
        # Only the reader has asked the exchange: a follower has nothing to sign with.
        keys = {request.key for request in exchange.requests if request.path == ACCOUNT_PATH}
        assert keys == {exchange.key}
        seen = {bot: len(bot.lines) for bot in followers}
        exchange.set_account("SOL/USDT", BAD)
        for bot in (one, three):
            seen[bot] = bot.wait_for("SOL/USDT long: block: margin level 1.2", after=seen[bot])
        reader.stop()
        for bot in followers:
            pair = "SOL/USDT" if bot is three else "BTC/USDT"
            seen[bot] = bot.wait_for(rf"{pair} long: block: the account is \d+ s old", after=seen[bot])
        exchange.set_account("SOL/USDT", HEALTHY)
        start("reader", PAIRS, key=True)
        for bot in followers:
            pair = "SOL/USDT" if bot is three else "BTC/USDT"
            bot.wait_for(f"{pair} long: allow", after=seen[bot])


def test_the_charts_show_the_accounts_also_after_a_restart(exchange: LocalExchange, tmp_path: Path) -> None:
    """The API has columns as of each close, shades, and plot settings beside the strategy's own."""
    config = config_for(exchange, PAIRS)
    with freqtrade(tmp_path, config, STRATEGY) as bot:
        bot.wait_for("XRP/USDT long: block")
        # Over the end of one candle.
        closed = datetime.now(UTC).minute
        line = bot.wait_for("LOOP")
        while datetime.now(UTC).minute == closed:
            line = bot.wait_for("LOOP", after=line)
        for _ in range(4):
            line = bot.wait_for("LOOP", after=line)
        before = _newest(bot, "XRP/USDT")
        assert bot.stop() in (0, 130)
    assert before["margin_level"] == 1.2
    assert before["index_price"] == 100
    assert before["margin_stake_factor"] == 0
    assert before["mine"] == 2.2
    assert before["liquidation_price"] == 87.5
    with closing(sqlite3.connect(tmp_path / "user_data" / DEFAULT_FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with freqtrade(tmp_path, config, STRATEGY) as bot:
        line = bot.wait_for("LOOP")
        bot.wait_for("LOOP", after=line)
        again = bot.api("GET", "pair_candles?pair=XRP/USDT&timeframe=1m&limit=10")
        place = again["columns"].index("margin_level")
        levels = {row[0]: row[place] for row in again["data"]}
        assert levels[before["date"]] == 1.2
        labels = [annotation["label"] for annotation in again["annotations"]]
        assert labels[0] == "mine"
        assert "entries blocked" in labels
        healthy = bot.api("GET", "pair_candles?pair=BTC/USDT&timeframe=1m&limit=10")
        assert [annotation["label"] for annotation in healthy["annotations"]] == ["mine"]
        plot = bot.api("GET", "plot_config")
        assert {"mine", "liquidation_price"} <= plot["main_plot"].keys()
        assert "Margin level" in plot["subplots"]


def _newest(bot: Any, pair: str) -> dict[str, Any]:
    """Return the newest candle that has a margin level, as freqtrade's API shows it."""
    answer = bot.api("GET", f"pair_candles?pair={pair}&timeframe=1m&limit=10")
    candles = [dict(zip(answer["columns"], row, strict=True)) for row in answer["data"]]
    return [candle for candle in candles if candle["margin_level"] is not None][-1]


def test_without_charts_and_history_there_is_nothing(exchange: LocalExchange, tmp_path: Path) -> None:
    """With both switched off the dataframe is as without the mixin, and no database is made."""
    section = {"refresh_seconds": 0.5, "max_age_seconds": 5, "charts": False, "history": False}
    strategy = (
        "\nclass Tested(IsolatedMarginMixin, Base, IStrategy):\n    def bot_loop_start(self, **kwargs):\n"
    )
    strategy += '        log.info("LOOP")\n'
    with freqtrade(tmp_path, config_for(exchange, PAIRS, isolated_margin=section), strategy) as bot:
        bot.wait_for("XRP/USDT long: block")
        line = bot.wait_for("LOOP")
        bot.wait_for("LOOP", after=line)
        answer = bot.api("GET", "pair_candles?pair=XRP/USDT&timeframe=1m&limit=3")
        assert not {"margin_level", "margin_stake_factor"} & set(answer["columns"])
        assert answer.get("annotations") in ([], None)
    assert not (tmp_path / "user_data" / DEFAULT_FILE).exists()


def test_a_password_of_the_database_appears_nowhere(exchange: LocalExchange, tmp_path: Path) -> None:
    """With a URL that holds one and leads nowhere, the bot trades and tells no password."""
    url = "postgresql+psycopg://bot:geheimes-wort@127.0.0.1:9/margin"
    with freqtrade(tmp_path, config_for(exchange, PAIRS), more_environment={ENV_DB_URL: url}) as bot:
        bot.wait_for(
            "history of the isolated margin accounts cannot be stored: the history database cannot be"
        )
        bot.wait_for("LIMIT_BUY has been fulfilled.*BTC/USDT")
        bot.stop()
        assert "geheimes-wort" not in bot.output
        assert bot.output.count("cannot be stored") == 1
