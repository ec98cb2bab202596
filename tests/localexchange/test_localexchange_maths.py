"""The arithmetic of the local exchange: recorded numbers, the published table, and properties."""

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from freqtrade_isolated_margin.localexchange import (
    DEFAULT_MARKETS,
    SCENARIOS,
    AccountSpec,
    Keyframes,
    LocalExchange,
    MarketSpec,
    Walk,
)
from freqtrade_isolated_margin.localexchange.amounts import SATOSHI, fixed, floored, plain
from freqtrade_isolated_margin.localexchange.ledger import (
    Holding,
    IsolatedAccount,
    liquidation_price,
    margin_level,
)
from freqtrade_isolated_margin.localexchange.liquidation import liquidate
from freqtrade_isolated_margin.localexchange.markets import Market
from freqtrade_isolated_margin.localexchange.paths import noise, seed_of, wander
from freqtrade_isolated_margin.localexchange.state import State

amounts = st.decimals("0", "100000", places=4)


def market(leverage: int, price: str = "50000") -> Market:
    """A market of a maximum leverage."""
    return Market(MarketSpec("BTC/USDT", price, leverage))


class TestRecorded:
    """The recorded FETUSDT account."""

    base = Holding(free=Decimal("1463.4144"), locked=Decimal("491.3"))
    quote = Holding(
        free=Decimal("20.65536756"), borrowed=Decimal("889.66509394"), interest=Decimal("0.05560407")
    )

    def test_liquidation_price(self) -> None:
        """The liquidation price is the recorded one at the ratio of that time."""
        assert plain(liquidation_price(self.base, self.quote, Decimal("1.1575"))) == "0.51628838"

    def test_margin_level(self) -> None:
        """The margin level is the recorded one at the price that the values in BTC imply."""
        btc_price = (self.quote.net / Decimal("-0.01545198")).quantize(Decimal("0.01"))
        price = Decimal("0.02088936") * btc_price / self.base.net
        level = margin_level(self.base, self.quote, price)
        assert level == pytest.approx(Decimal("1.34371923"), abs=Decimal("0.000001"))

    def test_net_asset(self) -> None:
        """Net assets are totals less loans less interest."""
        row = self.quote.row("USDT", Decimal(0))
        assert (row["netAsset"], row["totalAsset"]) == ("-869.06533045", "20.65536756")


@pytest.mark.parametrize(
    ("leverage", "level", "call", "liquidation", "spec"),
    [
        (10, "1.11111111", "49500", "47250", AccountSpec(base_free="0.02", quote_borrowed="900")),
        (10, "1.11111111", "50505", "52910", AccountSpec(quote_free="1000", base_borrowed="0.018")),
        (5, "1.25", "47600", "46000", AccountSpec(base_free="0.02", quote_borrowed="800")),
        (5, "1.25", "52521", "54348", AccountSpec(quote_free="1000", base_borrowed="0.016")),
        (3, "1.5", "40667", "39333", AccountSpec(base_free="0.03", quote_borrowed="1000")),
        (3, "1.5", "61475", "63559", AccountSpec(quote_free="1500", base_borrowed="0.02")),
    ],
)
def test_entries_at_full_leverage(
    leverage: int, level: str, call: str, liquidation: str, spec: AccountSpec
) -> None:
    """Entries at full leverage have the published levels and prices."""
    account = IsolatedAccount.of(market(leverage), spec)
    row = account.row(Decimal(50000), Decimal(1), Decimal("0.00002"))
    assert row["marginLevel"] == level
    assert round(Decimal(str(row["liquidatePrice"]))) == int(liquidation)
    assert row["marginRatio"] == str(leverage)
    tier = account.tier
    assert round(liquidation_price(account.base, account.quote, tier.margin_call)) == int(call)


@given(
    base=st.tuples(amounts, amounts),
    quote=st.tuples(amounts, amounts),
    ratio=st.sampled_from(["1.05", "1.15", "1.18"]),
)
def test_level_at_the_liquidation_price_is_the_ratio(
    base: tuple[Decimal, Decimal], quote: tuple[Decimal, Decimal], ratio: str
) -> None:
    """Where there is a liquidation price, the margin level there is the ratio."""
    base_holding = Holding(free=base[0], borrowed=base[1])
    quote_holding = Holding(free=quote[0], borrowed=quote[1])
    price = liquidation_price(base_holding, quote_holding, Decimal(ratio))
    assume(price > Decimal("0.001"))
    level = margin_level(base_holding, quote_holding, price)
    assert level == pytest.approx(Decimal(ratio), rel=Decimal("0.0000001"))


@pytest.mark.parametrize(
    ("level", "status"),
    [
        ("2", "EXCESSIVE"),
        ("1.26", "EXCESSIVE"),
        ("1.25", "NORMAL"),
        ("1.191", "NORMAL"),
        ("1.19", "MARGIN_CALL"),
        ("1.17", "PRE_LIQUIDATION"),
        ("1.15", "FORCE_LIQUIDATION"),
        ("0.5", "FORCE_LIQUIDATION"),
    ],
)
def test_status_bands(level: str, status: str) -> None:
    """The status follows from the margin level and the ratios of the tier."""
    spec = AccountSpec(quote_free=level, quote_borrowed="1")
    assert IsolatedAccount.of(market(5), spec).status(Decimal(50000)) == status


def test_both_debts() -> None:
    """Both debts count; below the ratio an account is liquidated, whatever the formula says."""
    spec = AccountSpec(base_free="1", quote_free="0.5", base_borrowed="1", quote_borrowed="1")
    account = IsolatedAccount.of(market(5, "1"), spec)
    assert account.level(Decimal(1)) == Decimal("0.75")
    assert account.must_be_liquidated(Decimal(1))
    assert account.row(Decimal(1), Decimal(0), Decimal(0))["liquidatePrice"] == "0"


def test_larger_loans_are_in_higher_tiers() -> None:
    """The higher tier of the two loans applies, and shows as its leverage."""
    spec = AccountSpec(base_free="100", base_borrowed="1", quote_borrowed="150000")
    row = IsolatedAccount.of(market(5), spec).row(Decimal(50000), Decimal(1), Decimal(0))
    assert row["marginRatio"] == "4.2"
    huge = AccountSpec(base_free="100", quote_borrowed="99000000")
    assert IsolatedAccount.of(market(5), huge).tier.number == 5


@given(
    base=st.tuples(amounts, amounts),
    quote=st.tuples(amounts, amounts),
    price=st.decimals("0.01", "90000", places=2),
)
def test_liquidation_repays(
    base: tuple[Decimal, Decimal], quote: tuple[Decimal, Decimal], price: Decimal
) -> None:
    """After a liquidation nothing is owed, nothing is negative, and no worth appears.

    But for what a satoshi of the base is worth: less of it cannot be traded.
    """
    account = IsolatedAccount(
        market(10), base=Holding(base[0], borrowed=base[1]), quote=Holding(quote[0], borrowed=quote[1])
    )
    before = account.base.net * price + account.quote.net
    liquidate(account, price)
    assert not account.indebted
    assert account.base.free >= 0
    assert account.quote.free >= 0
    after = account.base.free * price + account.quote.free
    assert after == pytest.approx(max(Decimal(0), before), abs=Decimal("0.00001") + price * SATOSHI)


class TestNumbers:
    """How numbers are written."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("0", "0"),
            ("-0.000000001", "0"),
            ("999", "999"),
            ("100", "100"),
            ("1E+3", "1000"),
            ("0.516288381", "0.51628838"),
        ],
    )
    def test_plain(self, value: str, text: str) -> None:
        """Margin numbers have no padding, no exponent, and at most eight decimals."""
        assert plain(Decimal(value)) == text

    def test_fixed(self) -> None:
        """Spot numbers have eight decimals."""
        assert fixed(Decimal("1E+3")) == "1000.00000000"

    @given(value=st.decimals("0", "100000", places=8), step=st.sampled_from(["0.0001", "0.1", "1"]))
    def test_floored(self, value: Decimal, step: str) -> None:
        """A floored number is a multiple of the step, less than a step below."""
        result = floored(value, Decimal(step))
        assert result % Decimal(step) == 0
        assert 0 <= value - result < Decimal(step)

    @pytest.mark.parametrize("spec", DEFAULT_MARKETS, ids=lambda spec: spec.pair)
    def test_ticks_and_steps(self, spec: MarketSpec) -> None:
        """A price times a quantity has no more than eight decimals."""
        made = Market(spec)
        assert (made.tick * made.step) % Decimal("0.00000001") == 0
        assert made.price % made.tick == 0


class TestPaths:
    """Price paths."""

    @given(seed=st.integers(0, 2**32), position=st.floats(-1e6, 1e6))
    def test_noise_is_bounded_and_smooth(self, seed: int, position: float) -> None:
        """Noise stays between -1 and 1 and does not jump."""
        assert -1 <= noise(seed, position) <= 1
        assert abs(noise(seed, position + 0.001) - noise(seed, position)) < 0.01

    def test_wander_goes_through_one(self) -> None:
        """A random path begins at one, moves both ways, and differs from pair to pair."""
        assert wander(1, 0.0) == 1
        assert wander(1, -500.0) != wander(2, -500.0) != 1

    def test_seeds_do_not_depend_on_the_process(self) -> None:
        """Paths are the same in each process."""
        assert seed_of("BTCUSDT") == 2895029187

    def test_keyframes(self) -> None:
        """A drawn path goes through its points and stays at the last."""
        path = Keyframes(((0.0, 1.0), (10.0, 2.0), (20.0, 1.5)))
        assert [path.factor(when, 0) for when in (0, 10, 20, 99)] == [1, 2, 1.5, 1.5]
        assert 1 < path.factor(5, 0) < 2

    def test_drift_is_reproducible(self) -> None:
        """A walk is the same in each run and another with another seed."""
        assert Walk(1).factor(1234.5, 7) == Walk(1).factor(1234.5, 7) != Walk(2).factor(1234.5, 7)


class TestFall:
    """The scenario of the demonstration, looked at along its path."""

    def rows(self, elapsed: float) -> dict[str, dict[str, object]]:
        """Return the accounts at a moment of the scenario."""
        state = State(DEFAULT_MARKETS, SCENARIOS["fall"], speed=1.0, fee=Decimal(0))
        state.prices.start(state.born)
        state.now = lambda: state.born + elapsed  # type: ignore[method-assign]
        return {symbol: state.account_row(symbol) for symbol in state.markets}

    def levels(self, symbol: str) -> list[float]:
        """Return the margin levels of an account, every three seconds."""
        return [float(str(self.rows(elapsed)[symbol]["marginLevel"])) for elapsed in range(0, 66, 3)]

    def test_healthy_long(self) -> None:
        """BTC/USDT stays healthy."""
        assert min(self.levels("BTCUSDT")) > 2.4

    def test_long_that_becomes_tight(self) -> None:
        """ETH/USDT starts healthy and ends tight."""
        levels = self.levels("ETHUSDT")
        assert levels[0] == pytest.approx(2.3, abs=0.01)
        assert levels[-1] == pytest.approx(1.6, abs=0.01)

    def test_long_that_becomes_blocked(self) -> None:
        """SOL/USDT starts tight and ends below 1.25, but above its margin call."""
        levels = self.levels("SOLUSDT")
        assert levels[0] == pytest.approx(1.7, abs=0.01)
        assert levels[-1] == pytest.approx(1.22, abs=0.005)
        assert self.rows(65)["SOLUSDT"]["marginLevelStatus"] == "NORMAL"

    def test_long_that_recovers(self) -> None:
        """XRP/USDT starts at its margin call and rises out of it."""
        assert self.rows(0)["XRPUSDT"]["marginLevelStatus"] == "MARGIN_CALL"
        levels = self.levels("XRPUSDT")
        assert levels[0] == pytest.approx(1.185, abs=0.001)
        assert levels[-1] > 1.7

    def test_short(self) -> None:
        """BNB/USDT is a short and gets healthier."""
        levels = self.levels("BNBUSDT")
        assert levels[0] == pytest.approx(1.5, abs=0.001)
        assert levels[-1] > 2.1
        assert Decimal(str(self.rows(0)["BNBUSDT"]["liquidateRate"])) > 0

    def test_no_debt_and_no_account(self) -> None:
        """ADA/USDT owes nothing and DOGE/USDT has no account."""
        rows = self.rows(30)
        assert rows["ADAUSDT"]["marginLevel"] == "999"
        assert rows["ADAUSDT"]["isolatedCreated"] is True
        assert rows["DOGEUSDT"]["isolatedCreated"] is False

    @pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT", "FETUSDT"])
    def test_levels_move_smoothly(self, symbol: str) -> None:
        """No level jumps."""
        levels = [float(str(self.rows(tenth / 2)[symbol]["marginLevel"])) for tenth in range(130)]
        assert all(abs(right / left - 1) < 0.02 for left, right in pairwise(levels))

    def test_crash_ends_in_liquidations(self) -> None:
        """The crash liquidates several accounts and spares a short."""
        with LocalExchange("crash", speed=100) as exchange:
            exchange.state.liquidation_grace = 0
            exchange.start_scenario()
            exchange.wait_for(lambda ex: ex.elapsed > 45)
            liquidated = {record.symbol for record in exchange.state.liquidations}
            assert {"ETHUSDT", "SOLUSDT"} <= liquidated
            assert "BNBUSDT" not in liquidated

    def test_every_account_has_a_market(self) -> None:
        """No scenario names a pair that is not there."""
        pairs = {spec.pair for spec in DEFAULT_MARKETS}
        for scenario in SCENARIOS.values():
            assert {*scenario.accounts, *scenario.paths} <= pairs
