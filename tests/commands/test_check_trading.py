"""`freqtrade-isolated-margin check` of a bot that trades in the margin accounts, on the local exchange."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.bot import PLAIN_STRATEGY, STRATEGY_HEAD
from support.live_bot import PAIR, live_config, margin_exchange

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.commands.cli import main
from freqtrade_isolated_margin.history.asking import open_history
from freqtrade_isolated_margin.history.writing import key_id
from freqtrade_isolated_margin.localexchange import AccountSpec, ApiKey, LocalExchange
from freqtrade_isolated_margin.rules.settings import HistorySettings
from freqtrade_isolated_margin.trading.journal import Deal, Journal


@pytest.fixture(scope="module")
def exchange() -> Iterator[LocalExchange]:
    """Serve one pair at a price of 100."""
    with margin_exchange() as exchange:
        yield exchange


@pytest.fixture(autouse=True)
def clean(exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test does to the exchange, and hide the credentials of whoever runs it."""
    monkeypatch.delenv("ISOLATED_MARGIN_API_KEY", raising=False)
    monkeypatch.delenv("ISOLATED_MARGIN_API_SECRET", raising=False)
    exchange.set_account(PAIR, AccountSpec())
    yield
    exchange.state.burns["interestBNBBurn"] = False


@pytest.fixture
def check(exchange: LocalExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command, and returns states and words of its lines on trading."""

    def run(key: ApiKey | None = None, strategy: str = PLAIN_STRATEGY, **changes: Any) -> list[str]:
        folder = tmp_path / "user_data" / "strategies"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tested.py").write_text(STRATEGY_HEAD + strategy)
        config = live_config(exchange) | {"strategy": "Tested"} | changes
        if key:
            config["exchange"] |= {"key": key.key, "secret": key.secret}
        (tmp_path / "config.json").write_text(json.dumps(config))
        capsys.readouterr()
        main(
            ["check", "-c", str(tmp_path / "config.json"), "--userdir", str(tmp_path / "user_data"), "--json"]
        )
        lines = json.loads(capsys.readouterr().out)["checks"]
        return [
            f"{line['state']} {line['found']}" for line in lines if line["what"] in {"trading", "strategy"}
        ]

    return run


def test_a_bot_that_may_trade(check: Any) -> None:
    """What the start looks at is well, and the rates are told."""
    assert check()[1:] == [
        "ok the key may trade on margin and move collateral",
        "ok fees and interest are paid in the assets themselves",
        "ok a day of a loan costs: BTC 0.024 %, USDT 0.024 %",
    ]


def test_the_mixin_is_no_need(check: Any) -> None:
    """The exchange asks the guard at each order, whatever the strategy."""
    plain = "class Tested(Base):\n    pass\n"
    assert check(strategy=plain)[0].startswith("ok Tested does not carry the mixin: the guard is asked")


def test_what_the_start_refuses(check: Any, exchange: LocalExchange) -> None:
    """A key without transfers, interest in BNB, and a configuration of plain futures, by name."""
    exchange.state.burns["interestBNBBurn"] = True
    found = check(exchange.add_key())
    assert "failure the key lacks permitsUniversalTransfer" in found
    assert "failure fees or interest are paid in BNB (interestBNBBurn)" in found
    assert any("'spot'" in line and line.startswith("failure") for line in check(trading_mode="spot"))


def test_a_dry_run_is_simulated(check: Any) -> None:
    """It needs nothing of the accounts."""
    assert check(dry_run=True)[1:] == ["ok the bot trades dry, in simulated accounts"]


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ({"quote_free": "50", "quote_borrowed": "20"}, "it owes 20 USDT"),
        ({"base_free": "0.5"}, "it holds 0.5 BTC"),
    ],
)
def test_leftovers_without_a_deal(
    check: Any, exchange: LocalExchange, account: dict[str, str], said: str
) -> None:
    """Debts and collateral that no deal of the bot owns."""
    exchange.set_account(PAIR, AccountSpec(**account))
    assert any(
        line.startswith("failure") and said in line and "no deal of this bot" in line for line in check()
    )


@pytest.mark.parametrize("trouble", [None, "there is an order in its account; cancel it"])
def test_an_account_that_is_in_use(
    check: Any, exchange: LocalExchange, tmp_path: Path, trouble: str | None
) -> None:
    """It is said of a deal since when, or what a person should look at."""
    exchange.set_account(PAIR, AccountSpec(base_free="3", quote_borrowed="150"))
    config = {"user_data_dir": str(tmp_path / "user_data")}
    (tmp_path / "user_data").mkdir()
    with closing(open_history(HistorySettings(), config)) as history:
        journal = Journal(history, key_id(exchange.key), "freqtrade")
        journal.prepare()
        deal = Deal(PAIR, Side.LONG, 1_795_000_000_000)
        journal.open(deal)
        if trouble:
            journal.trouble(deal, trouble)
    found = check()
    assert not any("no deal" in line for line in found)
    said = f"failure {PAIR}: {trouble}" if trouble else f"ok {PAIR}: its account is in use since 2026-11-18"
    assert any(line.startswith(said) for line in found), found
