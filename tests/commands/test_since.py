"""`--since`, whatever form it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from freqtrade_isolated_margin.binance.clock import milliseconds
from freqtrade_isolated_margin.commands.periods import DEFAULT, parse_since
from freqtrade_isolated_margin.errors import SettingsError

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        (" 12h ", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        (DEFAULT, NOW - timedelta(days=1)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("20261101", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T09:30", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01 09:30:01", datetime(2026, 11, 1, 9, 30, 1, tzinfo=UTC)),
        ("2026-11-01T09:30Z", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01T09:30+01:00", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
    ],
)
def test_durations_and_dates_are_understood(text: str, expected: datetime) -> None:
    """A duration counts back from now; a date without a zone is one of UTC."""
    assert parse_since(text, NOW) == milliseconds(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "12",
        "h",
        "-1h",
        "1.5h",
        "1w",
        "2026-13-01",
        "2026-02-30",
        "٣h",
        f"{'9' * 30}d",
        "99999999d",
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(text: str) -> None:
    """The message names the option, what was written, and the forms it may have."""
    with pytest.raises(SettingsError) as caught:
        parse_since(text, NOW)
    assert f"--since {text!r} is neither a duration such as 90m, 12h or 7d nor a date" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [("2026-11-26", "in the future"), ("1969-12-31", "before 1970"), ("30000d", "before 1970")],
)
def test_a_time_of_which_there_can_be_no_history_is_refused(text: str, why: str) -> None:
    """Neither the future nor what was before there were such times."""
    with pytest.raises(SettingsError, match=why):
        parse_since(text, NOW)
