"""A short campaign; `make campaign` runs the long one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.floor import Floor, floor
from support.live_bot import margin_exchange
from trading.campaign import campaign

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def trader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    """Run a bot in this process, on one pair."""
    with margin_exchange() as exchange, floor(tmp_path_factory.mktemp("floor"), exchange) as made:
        yield made


def test_the_books_balance_after_random_sequences(trader: Floor) -> None:
    """Entries, exits, cancels, moves, faults, kills and liquidations in any order."""
    figures = campaign(trader, 60, seed=100_000)
    assert figures["sequences"] == 60
    # It has not gone past what it is about.
    assert figures["orders"] > 40
    assert figures["killed"] > 10
    assert figures["fault"] > 20
