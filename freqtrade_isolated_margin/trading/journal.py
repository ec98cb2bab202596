"""What moves money, written down before it is sent and after it is answered.

A deal is all that a bot does in one pair's account for one trade; a step is one request of it. What has no
outcome in the journal is in doubt: `treasury` asks the exchange what became of it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import insert, select, update

from freqtrade_isolated_margin.account.maths import ZERO, Side
from freqtrade_isolated_margin.history import tables
from freqtrade_isolated_margin.history.asking import History


class Kind(StrEnum):
    """What a step asks for."""

    MOVE_IN = "move in"
    MOVE_OUT = "move out"
    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"
    REPAIR = "repair"
    """An order of the bot's own accord, which freqtrade does not know of: to settle what is left."""
    REPAY = "repay"
    LIQUIDATED = "liquidated"
    """Not asked for at all: what the exchange has done."""


class Outcome(StrEnum):
    """What came of a step."""

    DONE = "done"
    REFUSED = "refused"
    NEVER = "never"
    """It was not taken, as the exchange does not know of it."""


ORDERS = frozenset({Kind.ENTRY, Kind.EXIT, Kind.STOP, Kind.REPAIR})


@dataclass(slots=True)
class Step:
    """One request that moves money."""

    kind: Kind
    name: str
    asked: Mapping[str, Any]
    asked_at: int
    outcome: Outcome | None = None
    order_id: str | None = None
    answer: Any = None
    deal_id: int | None = None
    id: int | None = None
    """None where it could not be written down."""


@dataclass(slots=True)
class Deal:
    """What is done in one pair's account for one trade. Times are milliseconds by the exchange's clock."""

    pair: str
    side: Side
    opened_at: int
    base_before: Decimal = ZERO
    id: int | None = None
    trouble: str | None = None
    steps: list[Step] = field(default_factory=list)

    def order(self, order_id: str) -> Step | None:
        """Return the step with this order of the exchange's."""
        return next((step for step in self.steps if step.order_id == order_id), None)

    @property
    def doubtful(self) -> list[Step]:
        """The steps of which nobody knows what came of them."""
        return [step for step in self.steps if step.outcome is None and step.kind is not Kind.LIQUIDATED]

    def moved(self, asset: str) -> Decimal:
        """Return how much more of an asset was moved out of the account than into it."""
        signs = {Kind.MOVE_IN: -1, Kind.MOVE_OUT: 1}
        return sum(
            (
                Decimal(step.asked["amount"]) * signs[step.kind]
                for step in self.steps
                if step.kind in signs and step.outcome is Outcome.DONE and step.asked["asset"] == asset
            ),
            ZERO,
        )


class Journal:
    """The deals of one bot. Every method raises `HistoryError` where the database cannot do it."""

    def __init__(self, history: History, key_id: str, bot: str) -> None:
        self._history = history
        self._key_id = key_id
        self._bot = bot

    def prepare(self) -> None:
        """Make the tables where there are none."""
        self._history.prepare()

    def close(self) -> None:
        """Give back the connections."""
        self._history.close()

    def open_deals(self) -> list[Deal]:
        """Return the deals that are not closed, oldest first."""
        with self._history.reading() as connection:
            found = connection.execute(
                select(tables.Deal.__table__)
                .where(tables.Deal.key_id == self._key_id, tables.Deal.closed_at.is_(None))
                .order_by(tables.Deal.id)
            ).all()
            deals = [
                Deal(
                    pair=row.pair,
                    side=Side(row.side),
                    opened_at=row.opened_at,
                    base_before=Decimal(row.base_before),
                    id=row.id,
                    trouble=row.trouble,
                )
                for row in found
                if row.bot == self._bot
            ]
            for deal in deals:
                steps = connection.execute(
                    select(tables.Step.__table__)
                    .where(tables.Step.deal_id == deal.id)
                    .order_by(tables.Step.id)
                )
                deal.steps = [_step(row) for row in steps]
        return deals

    def order(self, pair: str, order_id: str) -> Step | None:
        """Return the step of an order in a pair, also of a deal that is closed."""
        return next(iter(self.orders(pair, [order_id])), None)

    def orders(self, pair: str, order_ids: Iterable[str]) -> list[Step]:
        """Return the steps of those orders in a pair that are in the journal."""
        with self._history.reading() as connection:
            rows = connection.execute(
                select(tables.Step.__table__)
                .join(tables.Deal.__table__)
                .where(
                    tables.Deal.key_id == self._key_id,
                    tables.Deal.pair == pair,
                    tables.Step.order_id.in_(list(order_ids)),
                )
            )
            return [_step(row) for row in rows]

    def liquidations(self, deal_ids: Iterable[int | None]) -> list[Step]:
        """Return the forced liquidations of some deals, oldest first."""
        with self._history.reading() as connection:
            rows = connection.execute(
                select(tables.Step.__table__)
                .where(
                    tables.Step.deal_id.in_([number for number in deal_ids if number is not None]),
                    tables.Step.kind == str(Kind.LIQUIDATED),
                    tables.Step.outcome == str(Outcome.DONE),
                )
                .order_by(tables.Step.id)
            )
            return [_step(row) for row in rows]

    def open(self, deal: Deal) -> None:
        """Write down a deal that begins."""
        row = {
            "key_id": self._key_id,
            "bot": self._bot,
            "pair": deal.pair,
            "side": str(deal.side),
            "base_before": f"{deal.base_before:f}",
            "opened_at": deal.opened_at,
        }
        with self._history.writing() as connection:
            deal.id = _new_id(connection.execute(insert(tables.Deal).values(**row)))

    def end(self, deal: Deal, at: int) -> None:
        """Write down that a deal has ended: its account holds and owes nothing for it."""
        with self._history.writing() as connection:
            changed = update(tables.Deal).where(tables.Deal.id == deal.id)
            connection.execute(changed.values(closed_at=at, trouble=None))

    def trouble(self, deal: Deal, trouble: str | None) -> None:
        """Write down what keeps a deal from being settled."""
        with self._history.writing() as connection:
            connection.execute(update(tables.Deal).where(tables.Deal.id == deal.id).values(trouble=trouble))
        deal.trouble = trouble

    def begin(self, deal: Deal, kind: Kind, asked: Mapping[str, Any], at: int) -> Step:
        """Write down a step before it is taken, under a name that no other has."""
        step = new_step(deal, kind, asked, at)
        row = {
            "deal_id": deal.id,
            "kind": str(kind),
            "name": step.name,
            "asked": json.dumps(step.asked, default=str),
            "asked_at": at,
        }
        with self._history.writing() as connection:
            step.id = _new_id(connection.execute(insert(tables.Step).values(**row)))
        deal.steps.append(step)
        return step

    def finish(
        self, step: Step, outcome: Outcome, order_id: str | None = None, answer: object = None
    ) -> None:
        """Write down what came of a step."""
        step.outcome, step.order_id, step.answer = outcome, order_id or step.order_id, answer
        if step.id is None:
            return
        with self._history.writing() as connection:
            connection.execute(
                update(tables.Step)
                .where(tables.Step.id == step.id)
                .values(outcome=str(outcome), order_id=step.order_id, answer=json.dumps(answer, default=str))
            )


def new_step(deal: Deal, kind: Kind, asked: Mapping[str, Any], at: int) -> Step:
    """Return a step that is not written down yet. Its name is a client order id (36 characters at most)."""
    # As it will be read again.
    plain = json.loads(json.dumps(asked, default=str))
    return Step(kind, f"fim-{deal.id or 0}-{secrets.token_hex(8)}", plain, at, deal_id=deal.id)


def _step(row: Any) -> Step:  # noqa: ANN401 - a row of SQLAlchemy's
    return Step(
        kind=Kind(row.kind),
        name=row.name,
        asked=json.loads(row.asked),
        asked_at=row.asked_at,
        outcome=Outcome(row.outcome) if row.outcome else None,
        order_id=row.order_id,
        deal_id=row.deal_id,
        answer=json.loads(row.answer) if row.answer else None,
        id=row.id,
    )


def _new_id(result: Any) -> int:  # noqa: ANN401 - as above
    return cast("int", result.inserted_primary_key[0])
