"""What long work shows meanwhile."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from freqtrade_isolated_margin.commands.terminal import busy, progress


class Screen(io.StringIO):
    """A terminal, or something that is none."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What becomes the standard error stream."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Screen(terminal=request.param)


def test_a_bar_goes_to_a_terminal_only(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """On the standard error stream, so that the standard output has nothing but what was asked for."""
    with redirect_stderr(screen), progress("Reading the history", 1000, 2000) as tell:
        for at in range(1000, 2001):
            tell(at)
    assert ("Reading the history" in screen.getvalue()) == screen.isatty()
    assert screen.isatty() or screen.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_what_takes_an_unknown_time_is_named_on_a_terminal_only(screen: Screen) -> None:
    """As long as it takes."""
    with redirect_stderr(screen), busy("Drawing"):
        pass
    assert ("Drawing" in screen.getvalue()) == screen.isatty()
    assert screen.isatty() or screen.getvalue() == ""


def test_an_empty_period_has_a_bar_too(screen: Screen) -> None:
    """Nothing is divided by its length."""
    with redirect_stderr(screen), progress("Reading the history", 1000, 1000) as tell:
        tell(1000)
    assert ("Reading" in screen.getvalue()) == screen.isatty()
