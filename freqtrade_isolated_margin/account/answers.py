"""Reads the text of one answer after another, and remembers the newest.

The endpoint writes every row in the same way, so a pattern reads it at once, as strictly as a decoder and
all that comes after it. A row that stands where it stood before is not even read again.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import chain, repeat

from freqtrade_isolated_margin.account.maths import exact
from freqtrade_isolated_margin.account.records import (
    ROW_END,
    ROW_START,
    WRITTEN_ROW,
    WRITTEN_TOTALS,
    AccountsAnswer,
    PairAccount,
    Unreadable,
    answer_of,
    read_written,
)

_START = f'{{"assets":[{ROW_START}'
# No word of a row has a quotation mark in it, so this stands nowhere within a row.
_BETWEEN = f"{ROW_END},{ROW_START}"
_END = f"{ROW_END}]"

# The symbol of a row, and what the row says.
_Read = tuple[str, PairAccount | Unreadable]


class AnswerReader:
    """Reads answers that are written as the endpoint writes them. Not for use by two threads at once."""

    def __init__(self) -> None:
        # The rows of the newest answer: as they are written, and what they say.
        self._texts: list[str] = []
        self._rows: list[_Read] = []

    @exact
    def read(self, text: str) -> AccountsAnswer | None:
        """Return what `parse_answer` makes of the JSON in `text`; None if that is written in another way."""
        written, _, end = text.rpartition(_END)
        totals = WRITTEN_TOTALS.fullmatch(end)
        if totals is None or not written.startswith(_START):
            return None
        texts = written[len(_START) :].split(_BETWEEN)
        rows: list[_Read] = []
        before = chain(zip(self._texts, self._rows, strict=True), repeat(("", None)))
        for row, (row_before, known) in zip(texts, before, strict=False):
            if known and row == row_before:
                rows.append(known)
                continue
            found = WRITTEN_ROW.fullmatch(row)
            if found is None:
                return None
            rows.append(read_written(found.groups(""), known and known[1]))
        self._texts, self._rows = texts, rows
        return answer_of(rows, [total if total is None else Decimal(total) for total in totals.groups()])
