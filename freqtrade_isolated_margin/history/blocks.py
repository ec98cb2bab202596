"""When entries were blocked: the spans between stored decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from freqtrade_isolated_margin.history.tables import ROW_SECONDS
from freqtrade_isolated_margin.rules.settings import spot_pair

if TYPE_CHECKING:
    from freqtrade_isolated_margin.history.asking import Decided, History

# A decision is stored once a minute: without a newer one it is not known how long it stood.
STANDS_MS = 2 * ROW_SECONDS * 1000


class Span(NamedTuple):
    """From when to when entries were blocked, in milliseconds; the end is not included."""

    start: int
    end: int


def decisions_of(
    history: History, keys: Sequence[str], pair: str, since: int, until: int, bot: str
) -> list[Decided]:
    """Return the stored decisions on `pair` of the bot with this name, or of all bots if it has none.

    :raises HistoryError: where they cannot be read.
    """
    decisions = list(history.decisions([spot_pair(pair)], keys, since, until))
    return [decided for decided in decisions if decided.bot == bot] or decisions


def blocked_spans(
    history: History, keys: Sequence[str], pair: str, since: int, until: int, bot: str
) -> list[Span]:
    """Return when `decisions_of` the bot blocked entries into `pair`, in order.

    :raises HistoryError: where they cannot be read.
    """
    spans: list[Span] = []
    open_: dict[int, int] = {}
    for decision in decisions_of(history, keys, pair, since, until, bot):
        began = open_.pop(decision.session_id, None)
        if began is not None:
            spans.append(Span(began, min(decision.at, began + STANDS_MS)))
        if decision.outcome == "block":
            open_[decision.session_id] = decision.at
    spans += [Span(began, min(began + STANDS_MS, until)) for began in open_.values()]
    return joined_spans(spans)


def joined_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order, those that touch as one."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined
