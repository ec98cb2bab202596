"""The table of endpoints."""

from collections.abc import Callable
from dataclasses import dataclass

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

    def weigh(self, params: Parameters) -> int:
        """Weight of a request with these parameters."""
        return self.weight if isinstance(self.weight, int) else self.weight(params)


ROUTES: dict[tuple[str, str], Route] = {}


def route(
    method: str, path: str, weight: Weight, security: Security = Security.USER_DATA
) -> Callable[[Handler], Handler]:
    """Register a function as the handler of an endpoint."""

    def register(handler: Handler) -> Handler:
        ROUTES[(method, path)] = Route(handler, security, weight)
        return handler

    return register
