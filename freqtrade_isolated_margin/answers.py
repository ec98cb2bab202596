"""Reads the text of one answer after another, and remembers the newest.

The endpoint writes every row in the same way, so a pattern reads it at once, as strictly as a decoder and
all that comes after it. A row that stands where it stood before is not even read again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from .account import (
    WRITTEN_ROW,
    WRITTEN_TOTALS,
    AccountsAnswer,
    PairAccount,
    Unreadable,
    answer_of,
    read_written,
)
from .margin import exact

_START = '{"assets":['


class _Row(NamedTuple):
    """One row of the newest answer: as it is written, and what that says."""

    text: str
    symbol: str
    row: PairAccount | Unreadable


class AnswerReader:
    """Reads answers that are written as the endpoint writes them. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._newest: list[_Row] = []

    @exact
    def read(self, text: str) -> AccountsAnswer | None:
        """Return what `parse_answer` makes of the JSON in `text`; None if that is written in another way."""
        if not text.startswith(_START):
            return None
        rows: list[_Row] = []
        position, end = len(_START), ","
        while end == ",":
            row = self._row(
                text, position, self._newest[len(rows)] if len(rows) < len(self._newest) else None
            )
            if row is None:
                return None
            rows.append(row)
            position += len(row.text) + 1
            end = text[position - 1 : position]
        totals = WRITTEN_TOTALS.fullmatch(text, position - 1)
        if totals is None:
            return None
        self._newest = rows
        return answer_of(
            [(symbol, row) for _, symbol, row in rows],
            [total if total is None else Decimal(total) for total in totals.groups()],
        )

    def _row(self, text: str, position: int, before: _Row | None) -> _Row | None:
        if before and text.startswith(before.text, position):
            return before
        found = WRITTEN_ROW.match(text, position)
        if found is None:
            return None
        return _Row(found[0], *read_written(found.groups(), before and before.row))
