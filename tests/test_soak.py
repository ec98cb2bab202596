"""The soak, for as long as a test may take; `make soak` runs it for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from soak.soak import Plan, soak

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("soak")]


def test_bots_that_are_killed_and_lied_to_enter_by_the_rules_alone(tmp_path: Path) -> None:
    """100 pairs, two bots, faults and a kill: no entry against the rules, nothing lost, nothing grows."""
    plan = Plan(minutes=1.2, bots=2, pairs=100, speed=20.0, kills=1, seed=7)
    result = soak(plan, tmp_path / "bots")
    Console(width=160).print(result.table)
    assert result.wrong == []
    assert result.entries > 20
    assert result.guarded_after_kill == 1
