"""`freqtrade-isolated-margin`: the command. Each subcommand is loaded when it is asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from freqtrade_isolated_margin import __version__
from freqtrade_isolated_margin.commands.terminal import print_anything, print_error, print_unexpected
from freqtrade_isolated_margin.errors import IsolatedMarginError

FAILED = 2
"""The exit status of a command that could not do what it was asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default those of the process; return the exit status."""
    print_anything()
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    # freqtrade's options take a moment to load, so only the command that is asked for gets its own.
    for name, (subparser, add_arguments) in commands.items():
        if name in words[:1]:
            add_arguments(subparser)
    parsed = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = parsed.run
    as_json = bool(getattr(parsed, "json", False))
    try:
        status = run(parsed)
        # Here, so that a full disk is said as well.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads the output has seen enough (`… | head`).
        _discard_output()
        return 0
    except IsolatedMarginError as error:
        print_error(error, as_json=as_json)
        return FAILED
    except Exception as error:  # noqa: BLE001 - no command ends with a traceback
        print_unexpected(error, as_json=as_json)
        _discard_output()
        return FAILED
    return status


def _discard_output() -> None:
    """Let the end of the process not try once more to write what cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


_AddArguments = Callable[[argparse.ArgumentParser], None]


def _parser() -> tuple[argparse.ArgumentParser, dict[str, tuple[argparse.ArgumentParser, _AddArguments]]]:
    parser = argparse.ArgumentParser(
        prog="freqtrade-isolated-margin",
        description="Guards freqtrade's entries with Binance's isolated margin accounts.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands = {}
    for name, (add_arguments, run, summary, example) in _COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example: %(prog)s {example}".rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=run)
        commands[name] = (subparser, add_arguments)
    return parser, commands


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed

    add_options(parser)
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help="pairs to show; default: the whitelist")
    parser.add_argument("--json", action="store_true", help="print JSON, with the decimals as reported")
    parser.add_argument("-s", "--strategy", metavar="NAME", help="take this strategy's settings into account")
    parser.add_argument(
        "--side", choices=["long", "short"], default="long", help="side of the entries judged"
    )


def _status(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.status import run  # noqa: PLC0415 - loads ccxt and freqtrade

    return run(parsed)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed

    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-s", "--strategy", metavar="NAME", help="default: the configured strategy")


def _check(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.check import run  # noqa: PLC0415 - loads ccxt and freqtrade

    return run(parsed)


def _history_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed
    from freqtrade_isolated_margin.commands.periods import DEFAULT  # noqa: PLC0415 - as above

    add_options(parser)
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help="pairs to show; default: all")
    parser.add_argument(
        "--since",
        default=DEFAULT,
        metavar="WHEN",
        help="a date such as 2026-11-01 (UTC) or a duration such as 90m, 12h or 7d; default: %(default)s",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print all of it as JSON, with the decimals as stored"
    )
    form.add_argument(
        "--csv", action="store_true", help="print all of it as CSV, with the decimals as stored"
    )


def _history(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.history import run  # noqa: PLC0415 - loads SQLAlchemy

    return run(parsed)


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed

    add_options(parser)
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help="pairs to watch; default: the whitelist")
    parser.add_argument("-s", "--strategy", metavar="NAME", help="take this strategy's settings into account")
    parser.add_argument(
        "--side", choices=["long", "short"], default="long", help="side of the entries judged"
    )


def _watch(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.watch import run  # noqa: PLC0415 - loads ccxt and freqtrade

    return run(parsed)


def _exchange_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.localexchange import SCENARIOS  # noqa: PLC0415 - loads FastAPI

    shapes = "\n".join(f"  {name:8} {scenario.description}" for name, scenario in SCENARIOS.items())
    parser.epilog = f"scenarios:\n{shapes}\n\n{parser.epilog}"
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: any free one")
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="calm", help="default: calm")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster prices move")


def _exchange(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.localexchange import run  # noqa: PLC0415 - loads FastAPI

    return run(port=parsed.port, scenario=parsed.scenario, speed=parsed.speed)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=75.0, help="how long the bot trades; default: 75")
    parser.add_argument(
        "--userdir", default="user_data", help="its configuration and strategy; default: user_data"
    )
    parser.add_argument(
        "--write",
        metavar="FOLDER",
        help="play nothing, but write the same fall, slowed to a day, as candles and history for backtests",
    )


def _demo(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.demo import run  # noqa: PLC0415 - loads nearly everything

    return run(parsed)


def _demo_trading_arguments(_parser: argparse.ArgumentParser) -> None:
    """Take none."""


def _demo_trading(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.demo_trading import run  # noqa: PLC0415 - loads nearly everything

    return run(parsed)


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed

    add_options(parser)
    parser.add_argument(
        "--print", action="store_true", dest="print_only", help="print the section and change nothing"
    )
    parser.add_argument(
        "-s", "--strategy", metavar="NAME", help="name the lines to change in it; default: the configured one"
    )
    parser.add_argument(
        "--strategy-path", metavar="PATH", help="the strategy's file or folder; default: user_data/strategies"
    )


def _init(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.init import run  # noqa: PLC0415 - only if needed

    return run(parsed)


def _plot_arguments(parser: argparse.ArgumentParser) -> None:
    from freqtrade_isolated_margin.commands.configuration import add_options  # noqa: PLC0415 - only if needed
    from freqtrade_isolated_margin.commands.periods import DEFAULT  # noqa: PLC0415

    add_options(parser, "db_url")
    parser.add_argument("pair", metavar="PAIR", help="pair to draw")
    parser.add_argument(
        "--since",
        default=DEFAULT,
        metavar="WHEN",
        help=f"from when on: a duration as 90m, 12h or 7d, or a date or moment in UTC; default: {DEFAULT}",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a .html or .png file; default: plot/isolated-margin-PAIR.html in the user data folder",
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="default: light")
    parser.add_argument("-s", "--strategy", metavar="NAME", help="take this strategy's settings into account")


def _plot(parsed: argparse.Namespace) -> int:
    from freqtrade_isolated_margin.commands.plot import run  # noqa: PLC0415 - loads freqtrade and what draws

    return run(parsed)


_COMMANDS: dict[str, tuple[_AddArguments, Callable[[argparse.Namespace], int], str, str]] = {
    "init": (
        _init_arguments,
        _init,
        "add the section to a configuration, and name the two lines to change in a strategy",
        "-c user_data/config.json --strategy MyStrategy",
    ),
    "status": (
        _status_arguments,
        _status,
        "read the accounts once and show what entries may be",
        "-c user_data/config.json BTC/USDT",
    ),
    "watch": (
        _watch_arguments,
        _watch,
        "show the accounts live, the most dangerous first",
        "-c user_data/config.json BTC/USDT ETH/USDT",
    ),
    "check": (
        _check_arguments,
        _check,
        "look at everything that the guard needs, and say what to do",
        "-c user_data/config.json",
    ),
    "history": (
        _history_arguments,
        _history,
        "show what is stored of the accounts and decisions",
        "-c user_data/config.json BTC/USDT --since 12h",
    ),
    "plot": (
        _plot_arguments,
        _plot,
        "draw a pair's margin level and liquidation price from the history",
        "-c user_data/config.json BTC/USDT --since 7d -o btc.png",
    ),
    "exchange": (
        _exchange_arguments,
        _exchange,
        "serve a Binance look-alike on 127.0.0.1",
        "--port 8123 --scenario fall",
    ),
    "demo": (
        _demo_arguments,
        _demo,
        "watch a real freqtrade trade, guarded, against the look-alike",
        "",
    ),
    "demo-trading": (
        _demo_trading_arguments,
        _demo_trading,
        "watch a real freqtrade trade in margin accounts, with real orders on the look-alike",
        "",
    ),
}
