"""Moments, as freqtrade and the history write them: milliseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime

ROW_SECONDS = 60
"""A pair's account gets a row in the history at least this often, also if nothing in it changes."""


def milliseconds(moment: datetime | float) -> int:
    """Return a moment, or UNIX seconds, as milliseconds since 1970 UTC."""
    return round((moment.timestamp() if isinstance(moment, datetime) else moment) * 1000)


def moment(at: int) -> datetime:
    """Return milliseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC)
