"""What was asked, and what was answered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, noted when its answer is known and before it is sent."""

    monotonic: float
    """`time.monotonic()` at the arrival."""
    wall: float
    """`time.time()` at the arrival."""
    method: str
    path: str
    params: Mapping[str, str]
    """Without the signature."""
    key: str | None
    """The API key that came with it."""
    weight: int
    status: int
    """0 where a fault keeps back the answer."""
    body: bytes = field(default=b"", repr=False)
    """The answer as served, kept for the isolated account only."""

    @property
    def answer(self) -> Any:  # noqa: ANN401 - JSON has any shape, the more so under a fault
        """The JSON of the answer; None where it was not kept or is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None
