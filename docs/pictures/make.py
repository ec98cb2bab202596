"""Makes the documentation's pictures anew: what `demo` and `watch` show of the same fall, on the look-alike.

It takes about 90 seconds, and needs nothing but a clone of the project: `python docs/pictures/make.py`.
"""

# ruff: noqa: INP001 - a script, which nothing imports

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.commands import demo
from freqtrade_isolated_margin.commands.board import draw
from freqtrade_isolated_margin.commands.watch import Watch
from freqtrade_isolated_margin.localexchange import LocalExchange
from freqtrade_isolated_margin.rules.settings import SECTION, Settings

HERE = Path(__file__).parent
CONFIG = HERE.parent.parent / "user_data" / "config.json"
# Of the scenario: prices have fallen and stand still, so that what was bought last is what is allowed now.
SECONDS = 66.0
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
# The colours of Okabe and Ito, which the colour-blind can tell apart, on a dark ground.
THEME = TerminalTheme(
    (24, 26, 31),
    (222, 224, 228),
    [
        (24, 26, 31),
        (240, 120, 60),
        (64, 190, 150),
        (240, 215, 90),
        (86, 160, 220),
        (204, 121, 167),
        (86, 180, 233),
        (222, 224, 228),
    ],
)


def main() -> None:
    """Play the fall once, and write both pictures at the same moment of it."""
    content = json.loads(CONFIG.read_text())
    settings = Settings.load(content[SECTION])
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalExchange(scenario="fall") as exchange,
    ):
        content |= {"user_data_dir": folder}
        content["exchange"] |= {
            "key": exchange.key,
            "secret": exchange.secret,
            "ccxt_config": {"urls": {"api": exchange.ccxt_urls}},
        }
        watch = Watch(content, settings, (), Side.LONG)
        watcher = demo.Watcher(exchange, settings)
        with demo._bot(CONFIG, Path(folder), exchange) as bot:  # noqa: SLF001 - as the demo itself does
            if not demo._await_first_read(exchange, bot):  # noqa: SLF001
                raise SystemExit(bot.log_tail())
            exchange.start_scenario()
            while exchange.elapsed < SECONDS:
                watch.look()
                watcher.look()
                time.sleep(0.5)
            view = watch.look()
            picture = demo._picture(watcher, bot.orders(), bot.locks(), 75.0 - SECONDS)  # noqa: SLF001
        watch.close()
    lines = len(view.rows) + 5
    write("watch", draw(view, 140, max(lines, 12)), 140)
    write("demo", picture, 140)


def write(name: str, picture: RenderableType, width: int) -> None:
    """Write one picture as SVG, with nothing in it that would have to be fetched from elsewhere."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(picture)
    svg = console.export_svg(
        title=f"freqtrade-isolated-margin {name}", theme=THEME, code_format=_format(), unique_id=name
    )
    (HERE / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def _format() -> str:
    """Return rich's own format without the fonts that it fetches."""
    style, rest = CONSOLE_SVG_FORMAT.split("</style>", 1)
    head = style.partition("@font-face")[0]
    rules = style[style.index(".{unique_id}-matrix") :].replace("Fira Code, monospace", FONTS)
    return f"{head}{rules}</style>{rest}".replace("font-family: arial", "font-family: sans-serif")


if __name__ == "__main__":
    main()
