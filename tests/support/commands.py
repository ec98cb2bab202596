"""Commands, run as a reader of the documents would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "freqtrade-isolated-margin"


def without_own_settings() -> dict[str, str]:
    """Return the environment without what would change what a command does: credentials above all."""
    own = ("FREQTRADE__", "ISOLATED_MARGIN_", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def run(*words: str, cwd: Path, timeout: float = 200, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the reader would, without the reader's own credentials."""
    return subprocess.run(
        words,
        cwd=cwd,
        env=without_own_settings() | environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
