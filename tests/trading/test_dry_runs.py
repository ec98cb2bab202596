"""Real dry runs in simulated margin accounts, on the local exchange."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bot import freqtrade
from support.margin_bot import MODULE, margin_config

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT"]

BOTH_SIDES = """
class Tested({mixin}Base, IStrategy):
    can_short = True

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long" if metadata["pair"] == "BTC/USDT" else "enter_short"] = 1
        return dataframe

    def leverage(self, **kwargs):
        return 3.0 if kwargs["side"] == "long" else 2.0
"""


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    """Serve two pairs at a price of 100."""
    with LocalExchange(
        scenario="calm", markets=[MarketSpec(pair, price="100") for pair in PAIRS]
    ) as exchange:
        yield exchange


@pytest.mark.parametrize("mixin", ["", "IsolatedMarginMixin, "])
def test_a_dry_run_trades_both_sides(exchange: LocalExchange, tmp_path: Path, mixin: str) -> None:
    """Without a key it borrows on both sides, has liquidation prices from the tiers, and pays interest."""
    config = margin_config(exchange, PAIRS)
    config["exchange"] |= {"key": "", "secret": ""}
    with freqtrade(tmp_path, config, BOTH_SIDES.format(mixin=mixin), module=MODULE) as bot:
        bot.wait_for("LIMIT_BUY has been fulfilled.*BTC/USDT")
        bot.wait_for("LIMIT_SELL has been fulfilled.*SOL/USDT")
        line = bot.wait_for("LOOP", after=len(bot.lines))
        trades = {trade["pair"]: trade for trade in bot.api("GET", "status")}
        assert {pair: (t["is_short"], t["leverage"]) for pair, t in trades.items()} == {
            "BTC/USDT": (False, 3.0),
            "SOL/USDT": (True, 2.0),
        }
        # 1.18 × 2/3 of the price, and 3/2 of it / 1.18, moved by 5 % of the way to the entry.
        long, short = trades["BTC/USDT"], trades["SOL/USDT"]
        assert long["liquidation_price"] / long["open_rate"] == pytest.approx(
            0.78667 + 0.05 * 0.21333, abs=1e-3
        )
        assert short["liquidation_price"] / short["open_rate"] == pytest.approx(
            1.27119 - 0.05 * 0.27119, abs=1e-3
        )
        assert "error" not in bot.api("POST", "forceexit", tradeid="all")
        bot.wait_for("SELL has been fulfilled.*BTC/USDT", after=line)
        bot.wait_for("BUY has been fulfilled.*SOL/USDT", after=line)
        paid = dict(bot.rows("SELECT pair, funding_fees FROM trades WHERE is_open = 0"))
        # The first hour at once, and another if one has begun: of 200 USDT, and of what was sold for 200.
        for fees in paid.values():
            hours = -fees / (200 * 0.0005 / 24)
            assert any(hours == pytest.approx(charged, rel=0.02) for charged in (1, 2)), hours
        assert exchange.orders == ()
        assert bot.stop() in (0, 130)
        assert "Traceback" not in bot.output


SEEING = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    can_short = True

    def bot_loop_start(self, current_time, **kwargs):
        account = self.margin_account("BTC/USDT")
        if account and account.has_debt:
            log.info("SEES level %.3f owes %.2f", account.margin_level, account.quote_asset.debt)

    def leverage(self, **kwargs):
        return 4.0
"""


@pytest.mark.parametrize("key", [True, False])
def test_simulated_accounts_are_what_everybody_sees(
    exchange: LocalExchange, tmp_path: Path, *, key: bool
) -> None:
    """The mixin and `status` show the simulated account, and not the real one of a key that is there."""
    exchange.set_account("BTC/USDT", AccountSpec(base_free="7", quote_borrowed="77"))
    config = margin_config(exchange, ["BTC/USDT"], {"max_leverage": 10})
    if not key:
        config["exchange"] |= {"key": "", "secret": ""}
    with freqtrade(tmp_path, config, SEEING, module=MODULE) as bot:
        # 100 of 400 USDT are its own.
        bot.wait_for(r"SEES level 1\.33\d owes 300\.")
        words = ["status", "-c", "config.json", "--userdir", "user_data", "--json"]
        shown = subprocess.run(
            [sys.executable, "-m", "freqtrade_isolated_margin", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "1.33" in shown.stdout, shown.stdout + shown.stderr
        assert not [r for r in exchange.requests if r.path == "/sapi/v1/margin/isolated/account"]
        assert bot.stop() in (0, 130)


@pytest.mark.parametrize(("key", "long", "short", "daily"), [(False, 3, 2, 0.0005), (True, 5, 4, 0.00048)])
def test_leverage_and_interest_are_those_of_the_exchange_or_of_the_settings(
    tmp_path: Path, *, key: bool, long: int, short: int, daily: float
) -> None:
    """Who has a key gets the pair's own tiers and rates; leverage that is asked for is cut to its side's."""
    strategy = BOTH_SIDES.format(mixin="IsolatedMarginMixin, ").replace(
        'return 3.0 if kwargs["side"] == "long" else 2.0', "return 20.0"
    )
    markets = [MarketSpec(pair, price="100", max_leverage=5, daily_interest="0.00048") for pair in PAIRS]
    with LocalExchange(scenario="calm", markets=markets) as exchange:
        config = margin_config(exchange, PAIRS)
        config["isolated_margin"]["margin_level"] = {"block_below": 1.2}
        if not key:
            config["exchange"] |= {"key": "", "secret": ""}
        with freqtrade(tmp_path, config, strategy, module=MODULE) as bot:
            bot.wait_for("LIMIT_BUY has been fulfilled.*BTC/USDT")
            bot.wait_for("LIMIT_SELL has been fulfilled.*SOL/USDT")
            assert dict(bot.rows("SELECT pair, leverage FROM trades")) == {
                "BTC/USDT": long,
                "SOL/USDT": short,
            }
            bot.api("POST", "forceexit", tradeid="all")
            bot.wait_for("SELL has been fulfilled.*BTC/USDT")
            (paid,) = bot.rows("SELECT funding_fees FROM trades WHERE pair = 'BTC/USDT'")
            hours = -paid[0] / (100 * (long - 1) * daily / 24)
            assert any(hours == pytest.approx(charged, rel=0.02) for charged in (1, 2)), hours


@pytest.mark.parametrize(
    ("order_types", "said"),
    [
        ({"stoploss": "market", "stoploss_on_exchange": True}, 'needs order_types.stoploss "limit"'),
        ({"stoploss": "limit", "stoploss_on_exchange": True}, "LOOP"),
    ],
)
def test_a_stop_loss_on_the_exchange_is_a_limit_order(
    exchange: LocalExchange, tmp_path: Path, order_types: dict[str, Any], said: str
) -> None:
    """Freqtrade would quietly place another type; the start says so instead."""
    config = margin_config(exchange, PAIRS, order_types={"entry": "limit", "exit": "limit", **order_types})
    with freqtrade(tmp_path, config, BOTH_SIDES.format(mixin=""), module=MODULE) as bot:
        bot.wait_for(said)
