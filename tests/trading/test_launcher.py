"""The command: freqtrade as it is without the setting, and never Binance's futures with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import freqtrade.exchange as exchanges
import pytest
from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.exchange.binance import Binance
from freqtrade.resolvers import ExchangeResolver
from support.bot import PLAIN_STRATEGY, config_for, freqtrade
from support.margin_bot import MODULE, RANGE, exported, margin_config, write_candles

from freqtrade_isolated_margin.localexchange import LocalExchange, MarketSpec
from freqtrade_isolated_margin.trading import launcher
from freqtrade_isolated_margin.trading.exchange import MarginExchange

pytestmark = pytest.mark.timeout(300)

PAIRS = ["BTC/USDT", "ETH/USDT"]

WITHOUT_MIXIN = """
class Tested(Base, IStrategy):
    can_short = True

    def bot_loop_start(self, current_time, **kwargs):
        log.info("LOOP")
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[LocalExchange]:
    """Serve the default markets."""
    with LocalExchange(scenario="calm") as exchange:
        yield exchange


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "Binance", Binance)
    launcher.register()


def loaded(config: dict[str, Any]) -> Binance:
    """Load the exchange of a configuration as freqtrade does."""
    config |= {"runmode": RunMode.BACKTEST, "dry_run": True}
    made = ExchangeResolver.load_exchange(config, validate=False)
    assert isinstance(made, Binance)
    return made


def test_the_console_script_is_the_launcher() -> None:
    """`freqtrade-margin` is declared, and names a function that is there."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = project["project"]["scripts"]["freqtrade-margin"].partition(":")
    assert getattr(import_module(module), name) is launcher.main


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("section", [{}, {"trading": {"enabled": False}}])
def test_without_the_setting_the_exchange_is_freqtrades_own(
    exchange: LocalExchange, section: dict[str, Any]
) -> None:
    """Not a class of this package, nor of another name, is made for a configuration that does not ask."""
    assert type(loaded(config_for(exchange, PAIRS, isolated_margin=section))) is Binance


@pytest.mark.usefixtures("_registered")
def test_with_the_setting_it_is_the_margin_exchange(exchange: LocalExchange) -> None:
    """A configuration that asks gets the class that trades on margin, whose candles are those of spot."""
    config = margin_config(exchange, PAIRS)
    assert type(loaded(config)) is MarginExchange
    assert config["candle_type_def"] == "spot"


@pytest.mark.usefixtures("_registered")
def test_an_error_of_the_class_does_not_lead_to_another_exchange(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freqtrade would take an AttributeError for a missing class, and go on with a generic exchange."""

    def broken(*_: object) -> None:
        raise AttributeError("made for the test")

    monkeypatch.setattr(MarginExchange, "additional_exchange_init", broken)
    with pytest.raises(OperationalException, match="cannot be made"):
        loaded(margin_config(exchange, PAIRS))


def listed(*words: str, module: str) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("words", [("--help",), ("trade", "--help"), ("list-exchanges", "-1")])
def test_other_commands_print_what_freqtrade_prints(words: tuple[str, ...]) -> None:
    """Help and the list of exchanges are freqtrade's, but for the name of the program."""
    of_ours, of_freqtrade = listed(*words, module=MODULE), listed(*words, module="freqtrade")
    assert re.sub(r"__main__\.py|freqtrade_isolated_margin\.trading", "", of_ours) == re.sub(
        r"__main__\.py", "", of_freqtrade
    )


def test_a_backtest_without_the_setting_is_freqtrades(exchange: LocalExchange, tmp_path: Path) -> None:
    """The same spot backtest has the same trades with both commands."""
    results = []
    for module in ("freqtrade", MODULE):
        folder = tmp_path / module
        write_candles(folder, "BTC/USDT", lambda hour: 50_000 + hour * 10)
        config = config_for(exchange, ["BTC/USDT"], timeframe="5m", fee=0.001)
        strategy = PLAIN_STRATEGY.replace("pass", 'timeframe = "5m"\n    minimal_roi = {"0": 0.001}')
        with freqtrade(
            folder, config, strategy, "backtesting", *RANGE, "--cache", "none", module=module
        ) as bot:
            assert bot.wait(200) == 0, bot.output[-3000:]
        results.append(exported(folder))
    assert results[0]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trade", "start the bot with the command freqtrade-margin instead of freqtrade"),
        # It comes to this before it has a strategy.
        ("backtesting", "No pair in whitelist"),
    ],
)
def test_plain_freqtrade_is_refused(exchange: LocalExchange, tmp_path: Path, command: str, said: str) -> None:
    """Plain freqtrade does not start with such a configuration, and says what to type where it trades."""
    with freqtrade(tmp_path, margin_config(exchange, PAIRS), PLAIN_STRATEGY, command) as bot:
        assert bot.wait(120) != 0
        bot.wait_for(said)


def test_plain_freqtrade_without_our_hosts_finds_no_market(exchange: LocalExchange, tmp_path: Path) -> None:
    """Where nothing of ours is loaded freqtrade runs in futures mode, but knows no market to trade."""
    config = margin_config(exchange, PAIRS, pairlists=[{"method": "StaticPairList"}], force_entry_enable=True)
    with freqtrade(tmp_path, config, WITHOUT_MIXIN) as bot:
        bot.wait_for("Pair BTC/USDT is not tradable with Freqtrade. Removing it")
        bot.wait_for("LOOP")
        for pair in ("BTC/USDT", "BTC/USDT:USDT"):
            answer = bot.api("POST", "forceenter", pair=pair, side="long")
            assert "Symbol does not exist or market is not active" in str(answer)
        assert bot.api("GET", "whitelist")["whitelist"] == []
        assert bot.rows("SELECT count(*) FROM trades") == [(0,)]
    assert not [request for request in exchange.requests if "fapi" in request.path]


def test_a_configuration_that_does_not_fit_ends_the_start(exchange: LocalExchange, tmp_path: Path) -> None:
    """The command says in one line what is missing, and nothing else comes with it."""
    config = margin_config(exchange, PAIRS, margin_mode="cross")
    with freqtrade(tmp_path, config, WITHOUT_MIXIN, module=MODULE) as bot:
        assert bot.wait(120) == 2
        bot.wait_for('freqtrade - ERROR - isolated_margin.trading needs "margin_mode": "isolated"')
    assert "Traceback" not in bot.output


def test_pairs_by_volume_are_margin_pairs(exchange: LocalExchange, tmp_path: Path) -> None:
    """A list that comes from the tickers has spot pairs."""
    volume = {"method": "VolumePairList", "number_assets": 2, "sort_key": "quoteVolume"}
    (tmp_path / "config.json").write_text(json.dumps(margin_config(exchange, PAIRS, pairlists=[volume])))
    options = ("-c", str(tmp_path / "config.json"), "--userdir", str(tmp_path))
    pairs = json.loads(listed("test-pairlist", *options, "--print-json", module=MODULE).splitlines()[-1])
    assert len(pairs) == 2
    assert all(pair.endswith("/USDT") for pair in pairs)


@pytest.mark.parametrize(
    ("may_transfer", "burns", "said"),
    [
        (False, False, r'the API key lacks permitsUniversalTransfer; .*set "collateral": "account"'),
        (True, True, r"fees or interest are paid in BNB \(interestBNBBurn\)"),
    ],
)
def test_live_needs_what_its_books_need(
    tmp_path: Path, said: str, *, may_transfer: bool, burns: bool
) -> None:
    """A key that may not move collateral, and interest in BNB, are refused by name, and nothing is sent."""
    with LocalExchange(permissions={"permitsUniversalTransfer": may_transfer}) as exchange:
        exchange.state.burns["interestBNBBurn"] = burns
        config = margin_config(exchange, PAIRS, dry_run=False)
        with freqtrade(tmp_path, config, WITHOUT_MIXIN, module=MODULE) as bot:
            assert bot.wait(120) != 0
            bot.wait_for(said)
        assert not [request for request in exchange.requests if request.method == "POST"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list-pairs", "--print-list"), "9 active pairs: ADA/USDT"),
        (("test-pairlist", "--print-json"), '["BTC/USDT","ETH/USDT"]'),
    ],
)
def test_what_lists_pairs_has_the_margin_markets(
    exchange: LocalExchange, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Pairs are in their spot form, and are those that may be traded on margin."""
    (tmp_path / "config.json").write_text(json.dumps(margin_config(exchange, PAIRS)))
    options = ("-c", str(tmp_path / "config.json"), "--userdir", str(tmp_path))
    assert said in listed(words[0], *options, *words[1:], module=MODULE)


def test_downloaded_candles_are_where_backtests_look_for_them(
    exchange: LocalExchange, tmp_path: Path
) -> None:
    """download-data stores candles of the spot market, of each timeframe, and nothing of futures."""
    config = margin_config(exchange, PAIRS)
    # Not from Binance's archive, which is elsewhere.
    config["exchange"]["only_from_ccxt"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = (
        "-c",
        str(tmp_path / "config.json"),
        "--userdir",
        str(tmp_path),
        "--datadir",
        str(tmp_path / "d"),
    )
    listed("download-data", *options, "-t", "5m", "1h", "--days", "1", module=MODULE)
    assert sorted(path.name for path in (tmp_path / "d").rglob("*.feather")) == [
        f"{pair.replace('/', '_')}-{timeframe}.feather" for pair in PAIRS for timeframe in ("1h", "5m")
    ]


def test_markets_without_isolated_margin_are_left_out(tmp_path: Path) -> None:
    """A market that may not be traded on margin is none of the pairs."""
    markets = [MarketSpec("BTC/USDT", price="100"), MarketSpec("XRP/USDT", price="1", isolated=False)]
    with LocalExchange(scenario="calm", markets=markets) as exchange:
        config = margin_config(exchange, ["BTC/USDT", "XRP/USDT"])
        with freqtrade(tmp_path, config, WITHOUT_MIXIN, module=MODULE) as bot:
            bot.wait_for("Pair XRP/USDT is not tradable with Freqtrade. Removing it")
            bot.wait_for("LOOP")
            assert bot.api("GET", "whitelist")["whitelist"] == ["BTC/USDT"]
