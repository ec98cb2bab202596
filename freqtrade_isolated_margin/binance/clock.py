"""Moments on both clocks, and as freqtrade and the history write them: milliseconds since 1970 UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple


class Moment(NamedTuple):
    """One instant on both clocks, in seconds: the monotonic one, and the wall clock's UNIX time."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Read both clocks."""
        return cls(time.monotonic(), time.time())

    def before(self, seconds: float) -> Moment:
        """Return the moment so many seconds earlier."""
        return Moment(self.monotonic - seconds, self.wall - seconds)

    @property
    def date(self) -> datetime:
        """The wall clock's time, in UTC."""
        return datetime.fromtimestamp(self.wall, UTC)

    def age(self, now: Moment) -> float:
        """Return the seconds since this moment: the larger of what the two clocks say.

        The monotonic clock stands still while a machine is suspended, the wall clock can be set.
        """
        return max(now.monotonic - self.monotonic, now.wall - self.wall)


def milliseconds(moment: datetime | float) -> int:
    """Return a moment, or UNIX seconds, as milliseconds since 1970 UTC."""
    return round((moment.timestamp() if isinstance(moment, datetime) else moment) * 1000)


def moment(at: int) -> datetime:
    """Return milliseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC)
