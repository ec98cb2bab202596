"""`--since`: from when on a command shows the history."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.errors import SettingsError

DEFAULT = "24h"
"""What `--since` is where it is not given."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_since(text: str, now: datetime) -> int:
    """Return the moment that `text` names as milliseconds since 1970 UTC.

    It is a duration before `now` (90m, 12h, 7d), or a date or moment (2026-11-01, 20261101,
    2026-11-01T09:30, 2026-11-01T09:30+01:00), in UTC unless it says otherwise.

    :raises SettingsError: where it is neither, or lies after `now` or before 1970.
    """
    said = text.strip()
    try:
        at = milliseconds(_moment(said, now))
    except (ValueError, OverflowError):
        raise SettingsError(
            f"--since {said!r} is neither a duration such as 90m, 12h or 7d nor a date such as 2026-11-01"
        ) from None
    if at > milliseconds(now):
        raise SettingsError(f"--since {said!r} lies in the future")
    if at < 0:
        raise SettingsError(f"--since {said!r} lies before 1970")
    return at


def _moment(text: str, now: datetime) -> datetime:
    duration = re.fullmatch(r"([0-9]+)([mhd])", text)
    if duration:
        amount, unit = duration.groups()
        return now - timedelta(**{_UNITS[unit]: int(amount)})
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
