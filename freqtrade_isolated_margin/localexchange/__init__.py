"""A Binance look-alike on loopback: spot market data and orders, and isolated margin accounts to trade in.

It shares no code with the guard, so that the two can disagree. What it answers beyond documented facts is
marked "assumed" where it is answered.
"""

from .faults import Fault
from .journal import RequestRecord
from .keys import ApiKey
from .ledger import AccountSpec
from .markets import DEFAULT_MARKETS, MarketSpec
from .orders import OrderRecord
from .paths import Keyframes, Path, Walk
from .scenarios import SCENARIOS, Scenario
from .server import LocalExchange, run

__all__ = [
    "DEFAULT_MARKETS",
    "SCENARIOS",
    "AccountSpec",
    "ApiKey",
    "Fault",
    "Keyframes",
    "LocalExchange",
    "MarketSpec",
    "OrderRecord",
    "Path",
    "RequestRecord",
    "Scenario",
    "Walk",
    "run",
]
