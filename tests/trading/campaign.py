"""Thousands of random sequences of a live bot's life, with the books as invariant: `make campaign`.

Each sequence enters, increases, exits, cancels, moves the price, lets hours pass, loses and refuses requests,
kills and restarts the bot, and liquidates its account, in any order. After each of them nothing is owed or
left behind, the exchange's own books balance, and freqtrade's profit is what the user's money has changed by,
but for what was undone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from support.floor import Floor, Killed, floor
from support.live_bot import PAIR, margin_exchange

from freqtrade_isolated_margin.localexchange import Fault

D = Decimal
# An order's figures are told in floats, and interest in base currency is counted at the price of its booking.
TOLERANCE = D("0.05")
TRANSFER, ORDER = "/sapi/v1/asset/transfer", "/sapi/v1/margin/order"
LOST = ({"reset": True}, {"code": -1001, "reset": True}, {"code": -1007, "done": True}, {"code": -1006})
CODES = (-2010, -1013, -3006, -3045, -11008, -3020, -5013, -1003, -1021, -3041)


class Sequence:
    """One random life of a bot in one pair."""

    def __init__(self, trader: Floor, seed: int) -> None:
        self.trader = trader
        self.random = random.Random(seed)
        self.done: list[str] = []
        self.faults = 0

    def run(self) -> None:
        """Live it, and look at the books at its end."""
        trader = self.trader
        trader.begin_anew()
        before = trader.exchange.net_assets()
        for _ in range(self.random.randint(3, 10)):
            self._act()
        self._note("settle")
        trader.exchange.faults.clear()
        trader.exchange.set_liquidity(PAIR, None)
        trader.settle()
        after, explained = trader.exchange.net_assets(), trader.exchange.explained()
        for asset in {*before, *after}:
            expected = before.get(asset, D(0)) + explained.get(asset, D(0))
            assert after.get(asset, D(0)) == expected, f"{asset}: {after} is not {before} and {explained}"
        difference = trader.books.earned - trader.profit - trader.beside
        assert abs(difference) < TOLERANCE, f"freqtrade's books differ by {difference}"

    def _note(self, what: str) -> None:
        self.done.append(what)

    def _act(self) -> None:
        """Do something, perhaps with a fault in the middle of it."""
        name = self.random.choice(ACTIONS)
        chance = self.random.random()
        if chance < 0.15:
            self._fault()
        if chance > 0.9:
            self._killed(name)
        else:
            self._note(name)
            getattr(self, f"_{name}")()

    def _killed(self, name: str) -> None:
        call = self.random.randint(0, 11)
        self._note(f"killed at {call} in {name}")
        with self.trader.killed_at(call) as happened, suppress(Killed):
            getattr(self, f"_{name}")()
        if happened():
            self._restart()

    def _fault(self) -> None:
        kind = self.random.choice((*LOST, *({"code": code} for code in CODES)))
        path, skip = self.random.choice((TRANSFER, ORDER)), self.random.randint(0, 1)
        self._note(f"fault {path.rpartition('/')[2]} {skip} {kind}")
        self.faults += 1
        self.trader.exchange.faults.add(Fault(path, method="POST", skip=skip, times=1, **kind))  # type: ignore[arg-type]

    def _price(self, spread: float = 0.002) -> float:
        return float(self.trader.exchange.price(PAIR)) * (1 + self.random.uniform(-spread, spread))

    def _enter(self) -> None:
        side, kind = self.random.choice(("long", "short")), self.random.choice(("market", "limit"))
        trade = self.trader.trade
        if trade:
            side = "short" if trade.is_short else "long"
        self.trader.enter(
            side, self.random.uniform(50, 400), kind, self._price() if kind == "limit" else None
        )

    def _exit(self) -> None:
        kind = self.random.choice(("market", "limit"))
        self.trader.exit(ordertype=kind, at=self._price() if kind == "limit" else None)

    def _part(self) -> None:
        self.trader.exit(self.random.uniform(0.2, 0.7))

    def _loop(self) -> None:
        self.trader.loop()

    def _cancel(self) -> None:
        self.trader.cancel()

    def _move(self) -> None:
        self.trader.exchange.set_price(PAIR, f"{self._price(0.04):.2f}")

    def _wait(self) -> None:
        self.trader.exchange.advance(3600 * self.random.randint(1, 30))

    def _thin(self) -> None:
        # What is filled can be sold again: freqtrade has no way out of less than the least order.
        self.trader.exchange.set_liquidity(PAIR, f"{self.random.uniform(0.1, 3):.5f}")

    def _liquidate(self) -> None:
        if self.trader.exchange.state.accounts:
            self.trader.exchange.liquidate(PAIR)

    def _restart(self) -> None:
        self.trader.restart()


ACTIONS = (
    *("enter",) * 5, *("loop",) * 6, *("exit",) * 3, *("part",) * 2, *("move",) * 4,
    "cancel", "cancel", "wait", "wait", "thin", "restart", "liquidate",
)  # fmt: skip


def campaign(
    trader: Floor, sequences: int, seed: int = 0, tell: Callable[[int, Counter[str]], None] | None = None
) -> Counter[str]:
    """Run sequences; return how often each thing was done.

    :raises AssertionError: where the books of one do not balance, with its seed and what was done in it.
    """
    figures: Counter[str] = Counter()
    for number in range(sequences):
        sequence = Sequence(trader, seed + number)
        try:
            sequence.run()
        except BaseException as error:
            words = ", ".join(sequence.done)
            raise AssertionError(f"sequence {seed + number} ({words}): {error}") from error
        figures.update(word.split(" ")[0] for word in sequence.done)
        figures["orders"] += len(trader.exchange.margin_orders)
        figures["sequences"] += 1
        if tell:
            tell(number + 1, figures)
    return figures


def main() -> None:
    """Run a campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()

    def tell(done: int, figures: Counter[str]) -> None:
        if done % 100 == 0:
            spent = time.monotonic() - began
            sys.stdout.write(f"{done} of {asked.sequences} sequences, {spent:.0f} s: {dict(figures)}\n")
            sys.stdout.flush()

    with (
        tempfile.TemporaryDirectory() as folder,
        margin_exchange() as exchange,
        floor(Path(folder), exchange) as trader,
    ):
        figures = campaign(trader, asked.sequences, asked.seed, tell)
    sys.stdout.write(f"The books balance after each of {figures['sequences']} sequences: {dict(figures)}\n")


if __name__ == "__main__":
    main()
