"""Real dry runs in simulated margin accounts, on the local exchange."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bot import freqtrade
from support.margin_bot import MODULE, margin_config

from freqtrade_isolated_margin.localexchange import LocalExchange, MarketSpec

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
