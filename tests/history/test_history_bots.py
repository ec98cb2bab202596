"""Real bots that store and follow the history, and one that does neither."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.bot import config_for, freqtrade
from support.postgresql import PostgreSQL

from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec
from freqtrade_isolated_margin.rules.settings import ENV_DB_URL

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]
ACCOUNT_PATH = "/sapi/v1/margin/isolated/account"
HEALTHY = AccountSpec(base_free="30", quote_borrowed="1000")
BAD = AccountSpec(base_free="12", quote_borrowed="1000")


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
    with ExitStack() as running:

        def start(name: str, pairs: list[str], *, key: bool, **section: Any) -> Any:
            (tmp_path / name).mkdir(exist_ok=True)
            config = config_for(exchange, pairs, isolated_margin={**times, **section}, bot_name=name)
            if not key:
                config["exchange"] |= {"key": "", "secret": ""}
            environment = {ENV_DB_URL: url}
            return running.enter_context(freqtrade(tmp_path / name, config, more_environment=environment))

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
