"""The soak, for as long as a test may take; `make soak` runs it for as long as one likes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

SCRIPT = Path(__file__).parent / "soak" / "soak.py"

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("soak")]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_bots_that_are_killed_and_lied_to_enter_by_the_rules_alone(tmp_path: Path) -> None:
    """100 pairs, two bots, faults and a kill: no entry against the rules, nothing lost, nothing grows."""
    script = _script()
    plan = script.Plan(minutes=1.2, bots=2, pairs=100, speed=20.0, kills=1, seed=7)
    result = script.soak(plan, tmp_path / "bots")
    Console(width=160).print(result.table)
    assert result.wrong == []
    assert result.entries > 20
    assert result.guarded_after_kill == 1
