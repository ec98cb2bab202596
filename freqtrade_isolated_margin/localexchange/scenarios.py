"""Scenarios: how prices move from the start, and what is in the accounts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .amounts import Number
from .ledger import AccountSpec
from .paths import Keyframes, Path, Walk


@dataclass(frozen=True)
class Scenario:
    """A story that an exchange can play."""

    name: str
    description: str
    paths: Mapping[str, Path] = field(default_factory=dict)
    default_path: Path = field(default_factory=Keyframes)
    accounts: Mapping[str, AccountSpec] = field(default_factory=dict)
    prices: Mapping[str, Number] = field(default_factory=dict)
    """Prices at the start that differ from those of the markets."""
    balances: Mapping[str, Number] = field(default_factory=lambda: {"USDT": "10000"})

    def path(self, pair: str) -> Path:
        """How the price of a pair moves."""
        return self.paths.get(pair, self.default_path)


def _to(factor: float, seconds: float = 60.0, wiggle: float = 0.0002) -> Keyframes:
    """One smooth move to a multiple of the price at the start."""
    return Keyframes(((0.0, 1.0), (seconds, factor)), wiggle)


# Margin levels at the prices of DEFAULT_MARKETS are in the comments.
_ACCOUNTS = {
    "BTC/USDT": AccountSpec(base_free="0.06", quote_borrowed="1000", quote_interest="0.01"),  # 3.0
    "ETH/USDT": AccountSpec(base_free="0.92", quote_borrowed="1000", quote_interest="0.02"),  # 2.3
    "BNB/USDT": AccountSpec(quote_free="1500", base_borrowed="2", base_interest="0.00002"),  # short, 1.5
    "SOL/USDT": AccountSpec(
        base_free="6.8", base_locked="1", quote_borrowed="690", quote_interest="0.03"
    ),  # 1.696
    "XRP/USDT": AccountSpec(
        base_free="1185", quote_borrowed="600", quote_interest="0.01"
    ),  # 1.185: MARGIN_CALL
    "ADA/USDT": AccountSpec(base_free="500", quote_free="100"),  # no debt
    "FET/USDT": AccountSpec(base_free="1050", quote_borrowed="600"),  # 2.1
}

_CALM = Scenario(
    "calm",
    "prices hardly move and nothing changes",
    default_path=Keyframes(wiggle=0.0001),
    accounts=_ACCOUNTS,
)

_FALL = Scenario(
    "fall",
    "a broad fall over a minute: longs tighten, a short gets room, XRP rises out of its margin call",
    paths={
        "BTC/USDT": _to(0.88),  # level 3.0 -> 2.64
        "ETH/USDT": Keyframes(((0.0, 1.0), (4.0, 1.0), (60.0, 0.696)), 0.0002),  # 2.3 -> 1.6
        "ETH/BTC": Keyframes(((0.0, 1.0), (4.0, 1.0), (60.0, 0.791)), 0.0002),
        "BNB/USDT": _to(0.70),  # 1.5 -> 2.14
        "SOL/USDT": Keyframes(((0.0, 1.0), (50.0, 0.7195), (60.0, 0.7195)), 0.0002),  # 1.696 -> 1.22
        "XRP/USDT": Keyframes(((0.0, 1.0), (15.0, 1.0), (55.0, 1.5)), 0.0002),  # 1.185 -> 1.78
        "ADA/USDT": _to(0.75),
        "FET/USDT": Keyframes(((0.0, 1.0), (25.0, 0.72), (60.0, 0.97)), 0.0002),  # 2.1 -> 1.51 -> 2.04
        "DOGE/USDT": _to(0.72),
    },
    default_path=_to(0.75),
    accounts=_ACCOUNTS,
)

_SQUEEZE = Scenario(
    "squeeze",
    "a rise over a minute: shorts run towards their liquidation prices, longs recover",
    paths={
        "BTC/USDT": _to(1.20),  # short, 2.2 -> 1.83
        "ETH/USDT": _to(1.35),  # short, 1.6 -> 1.185
        "BNB/USDT": _to(1.30),  # short, 1.5 -> 1.154
        "SOL/USDT": _to(1.50),  # long, 1.2 -> 1.8
    },
    default_path=_to(1.25),
    accounts={
        "BTC/USDT": AccountSpec(quote_free="2200", base_borrowed="0.02"),
        "ETH/USDT": AccountSpec(quote_free="1600", base_borrowed="0.4"),
        "BNB/USDT": AccountSpec(quote_free="1500", base_borrowed="2"),
        "SOL/USDT": AccountSpec(base_free="8", quote_borrowed="1000"),
        "ADA/USDT": AccountSpec(base_free="500", quote_free="100"),
    },
)

_CRASH = Scenario(
    "crash",
    "prices lose up to two thirds within 40 seconds, and most longs are liquidated",
    paths={
        "BTC/USDT": _to(0.60, 40.0),  # 3.0 -> 1.8
        "ETH/USDT": _to(0.40, 40.0),  # 2.3 -> liquidated
        "BNB/USDT": _to(0.50, 40.0),  # short, 1.5 -> 3.0
        "SOL/USDT": _to(0.35, 40.0),  # 1.696 -> liquidated
    },
    default_path=_to(0.45, 40.0),
    accounts=_ACCOUNTS,
)

_DRIFT = Scenario(
    "drift",
    "random walks without an end, different for each pair and the same in each run",
    default_path=Walk(seed=1),
    accounts=_ACCOUNTS,
)

_EMPTY = Scenario(
    "empty",
    "no accounts yet, money in the wallet, and prices that stand still: for trading there",
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (_CALM, _FALL, _SQUEEZE, _CRASH, _DRIFT, _EMPTY)
}
