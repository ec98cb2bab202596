"""The table of endpoints."""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import BinanceError
from .keys import ApiKey
from .protocol import Parameters, Security
from .state import State


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed all checks."""

    state: State
    params: Parameters
    key: ApiKey | None
    method: str

    def symbol(self) -> str:
        """Return the mandatory symbol, which exists."""
        return self.state.market(self.params.text("symbol")).symbol


Handler = Callable[[Call], object]
Weight = int | Callable[[Parameters], int]


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint."""

    handler: Handler
    security: Security
    weight: Weight
    by_uid: bool = False
    """Whether the weight counts for the user instead of the address."""

    def weigh(self, params: Parameters) -> int:
        """Weight of a request with these parameters."""
        return self.weight if isinstance(self.weight, int) else self.weight(params)


ROUTES: dict[tuple[str, str], Route] = {}


def route(
    method: str,
    path: str,
    weight: Weight,
    security: Security = Security.USER_DATA,
    *,
    by_uid: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a function as the handler of an endpoint."""

    def register(handler: Handler) -> Handler:
        ROUTES[(method, path)] = Route(handler, security, weight, by_uid)
        return handler

    return register


def page(call: Call, rows: list[dict[str, object]]) -> dict[str, object]:
    """Answer with the page of the rows that `current` and `size` ask for."""
    size, current = call.params.integer("size") or 10, call.params.integer("current") or 1
    if size > 100:  # noqa: PLR2004 - the documented maximum
        raise BinanceError(-1102, "Parameter 'size' is too large.")
    return {"rows": rows[(current - 1) * size : current * size], "total": len(rows)}


def within(call: Call, when: int) -> bool:
    """Whether a time in milliseconds is between `startTime` and `endTime`, as far as they were sent."""
    begin, end = call.params.integer("startTime") or 0, call.params.integer("endTime")
    return begin <= when and (end is None or when <= end)
