"""Real freqtrade processes: a dry run, starts that must fail, backtesting and hyperopt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.backtests import RANGE, WITH_MIXIN, WITHOUT_MIXIN, result, write_candles
from support.bot import config_for, freqtrade

from freqtrade_isolated_margin.localexchange import AccountSpec, LocalExchange, MarketSpec

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "SOL/USDT", "XRP/USDT"]

# Overrides everything, and never calls super().
DEAF_STRATEGY = """
class Tested(IsolatedMarginMixin, Base, IStrategy):
    isolated_margin = {"pairs": {"SOL/USDT": {"margin_level": {"full_above": 1.75}}}}

    @property
    def protections(self):
        return [{"method": "CooldownPeriod", "stop_duration_candles": 1}, {"method": "MarginLevelGuard"}]

    def bot_loop_start(self, current_time, **kwargs):
        sol = self.margin_account("SOL/USDT")
        if sol:
            log.info("SEES %s %s", sol.margin_level, self.margin_decision("SOL/USDT").factor)
        log.info("LOOP")
        raise ValueError("raised on purpose")

    def confirm_trade_entry(self, **kwargs):
        return True

    def custom_stake_amount(self, **kwargs):
        return 80.0
"""


@pytest.fixture
def exchange() -> Any:
    """Serve three pairs at a price of 100: a healthy account, one at level 1.5, one at level 1.2."""
    markets = [MarketSpec(pair, price="100") for pair in PAIRS]
    with LocalExchange(scenario="calm", markets=markets) as exchange:
        exchange.set_account("BTC/USDT", AccountSpec(base_free="30", quote_borrowed="1000"))
        exchange.set_account("SOL/USDT", AccountSpec(base_free="15", quote_borrowed="1000"))
        exchange.set_account("XRP/USDT", AccountSpec(base_free="12", quote_borrowed="1000"))
        yield exchange


def test_a_dry_run_of_a_strategy_that_overrides_everything(exchange: LocalExchange, tmp_path: Path) -> None:
    """Overrides without super() are guarded, with the settings of the strategy's own attribute."""
    with freqtrade(tmp_path, config_for(exchange, PAIRS), DEAF_STRATEGY) as bot:
        line = bot.wait_for("LIMIT_BUY has been fulfilled.*SOL/USDT")
        for _ in range(3):
            line = bot.wait_for("LOOP", after=line)
        bot.wait_for(r"SEES 1\.5 0\.5")
        stakes = dict(bot.rows("SELECT pair, stake_amount FROM trades"))
        assert {pair: round(amount, 2) for pair, amount in stakes.items()} == {
            "BTC/USDT": 80.0,
            "SOL/USDT": 40.0,
        }
        locks = bot.wait_for_locks("XRP/USDT")
        assert locks == {"XRP/USDT": "isolated margin: XRP/USDT margin_level"}
        assert exchange.orders == ()
        # When a trade closes freqtrade asks the protections, ours among them.
        exchange.set_account("BTC/USDT", AccountSpec(base_free="12", quote_borrowed="1000"))
        line = bot.wait_for("BTC/USDT long: block", after=line)
        status = bot.api("POST", "forceexit", tradeid="all")
        assert "error" not in status
        bot.wait_for("SELL has been fulfilled.*BTC/USDT", after=line)
        assert bot.stop() in (0, 130)


def test_refused_credentials_do_not_stop_the_start(exchange: LocalExchange, tmp_path: Path) -> None:
    """With a wrong secret the bot runs, enters nothing and says why."""
    config = config_for(exchange, PAIRS, isolated_margin={"refresh_seconds": 0.5, "max_age_seconds": 3})
    config["exchange"]["secret"] = "wrong-secret-wrong-secret-wrong-secret"
    with freqtrade(tmp_path, config) as bot:
        bot.wait_for(r"cannot be read: Binance refuses the credentials \(HTTP 4\d\d, code -1022\)")
        bot.wait_for(
            "Entry refused: BTC/USDT long: block: the account has not been read yet .Binance refuses"
        )
        bot.wait_for("Pair BTC/USDT . is locked until .* due to isolated margin: BTC/USDT not read yet")
        assert bot.rows("SELECT count(*) FROM trades") == [(0,)]
        assert "wrong-secret" not in bot.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exchange": {"key": "", "secret": ""}}, "no API key .* ISOLATED_MARGIN_API_KEY"),
        ({"exchange": {"secret": ""}}, "exchange.key is set but exchange.secret is not"),
        (
            {"isolated_margin": {"refresh_secs": 5}},
            "isolated_margin.refresh_secs is not a setting; did you mean 'refresh_seconds'",
        ),
    ],
)
def test_a_start_that_must_fail(
    exchange: LocalExchange, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Missing credentials and misspelt settings end the start with a message that says what to do."""
    config = config_for(exchange, PAIRS)
    for section, values in changes.items():
        config[section] = config[section] | values
    with freqtrade(tmp_path, config) as bot:
        bot.wait_for(said)
        assert bot.wait() != 0
        assert exchange.secret not in bot.output


def test_the_protection_needs_the_mixin(exchange: LocalExchange, tmp_path: Path) -> None:
    """Without the mixin freqtrade does not know `MarginLevelGuard`, and says what docs/protection.md has."""
    strategy = """
class Tested(Base, IStrategy):
    protections = [{"method": "MarginLevelGuard"}]
"""
    with freqtrade(tmp_path, config_for(exchange, PAIRS), strategy) as bot:
        bot.wait_for(
            "Impossible to load Protection 'MarginLevelGuard'. This class does not exist or contains Python"
        )
        assert bot.wait() != 0


# ----- without the bot


def backtest(folder: Path, exchange: LocalExchange, strategy: str) -> tuple[list[Any], str]:
    """Run a backtest; return its trades and what it printed."""
    folder.mkdir()
    write_candles(folder)
    config = config_for(exchange, ["BTC/USDT"], isolated_margin={})
    with freqtrade(folder, config, strategy, "backtesting", *RANGE, "--enable-protections") as bot:
        assert bot.wait(120) == 0, bot.output[-3000:]
    return result(folder)["trades"], bot.output


def test_a_backtest_runs_exactly_as_without_the_mixin(exchange: LocalExchange, tmp_path: Path) -> None:
    """The same trades, with the protection loaded, and one line that says that the guard stands down."""
    guarded, output = backtest(tmp_path / "with", exchange, WITH_MIXIN)
    plain, _ = backtest(tmp_path / "without", exchange, WITHOUT_MIXIN)
    assert guarded == plain
    assert len(guarded) > 10
    assert output.count("guard stands down") == 1
    assert "isolated/account" not in "".join(request.path for request in exchange.requests)


def test_hyperopt_with_two_workers(exchange: LocalExchange, tmp_path: Path) -> None:
    """Hyperopt's workers load a strategy with the mixin and run every epoch."""
    write_candles(tmp_path)
    config = config_for(exchange, ["BTC/USDT"], isolated_margin={})
    options = ["--epochs", "4", "-j", "2", "--spaces", "buy", "--hyperopt-loss", "SharpeHyperOptLoss"]
    more = ["--enable-protections", "--random-state", "1", "--min-trades", "1"]
    with freqtrade(tmp_path, config, WITH_MIXIN, "hyperopt", *RANGE, *options, *more) as bot:
        assert bot.wait(200) == 0, bot.output[-3000:]
    assert "Epochs" in bot.output
    (results,) = (tmp_path / "user_data" / "hyperopt_results").glob("*.fthypt")
    assert len(results.read_text().splitlines()) == 4
