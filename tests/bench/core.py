"""From the bytes of an answer to the decisions: how long it takes, how it grows, and what is kept of it.

``python -m bench.core`` prints a table. Times are processor time of this thread, so that what else runs on
the machine counts little; each round runs all of a figure's candidates one after another, and the medians
of the rounds are compared.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import cycle
from random import Random
from typing import Any

import ccxt

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import AccountsAnswer, parse_answer
from freqtrade_isolated_margin.rules.decide import EntryDecision, Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

try:
    from binance_sdk_margin_trading.rest_api.models import QueryIsolatedMarginAccountInfoResponse
except ImportError:
    QueryIsolatedMarginAccountInfoResponse = None

Figure = dict[str, Any]
Task = Callable[[], object]

ROWS = (5, 20, 100, 700)
# How many times as long as `json.loads` it took while a regular expression read each row, sums and decimals
# included. The other numbers of rows show the growth.
_BEFORE = {20: 3.9, 100: 3.7}
_READS, _EARLY_READS = 10_000, 100
_RULES = Rules()
_NO_SDK = "binance-sdk-margin-trading is not installed"


# ----- answers, as Binance writes them


def _text(number: Decimal) -> str:
    return f"{number:.8f}" if number else "0"


def _asset(rnd: Random, name: str, total: Decimal, debt: Decimal, *, locks: bool) -> dict[str, Any]:
    interest = (debt * Decimal(rnd.randrange(1, 100)) / 100_000).quantize(Decimal("1e-8"))
    locked = (total * Decimal(rnd.randrange(1, 9)) / 10).quantize(Decimal("1e-8")) if locks else Decimal(0)
    return {
        "asset": name,
        "borrowEnabled": True,
        "borrowed": _text(debt - interest),
        "free": _text(total - locked),
        "interest": _text(interest),
        "locked": _text(locked),
        "netAsset": _text(total - debt),
        "netAssetOfBtc": _text(Decimal(rnd.randrange(-(10**8), 10**8)).scaleb(-8)),
        "repayEnabled": True,
        "totalAsset": _text(total),
    }


def _row(rnd: Random, number: int) -> dict[str, Any]:
    """Build one account: of ten, five longs, three shorts and two without debt; every fifth has orders."""
    price = Decimal(rnd.randrange(10**7, 10**12)).scaleb(-8)
    worth = Decimal(rnd.randrange(10**10, 10**12)).scaleb(-8)
    level, ratio = Decimal(rnd.randrange(12, 40)) / 10, Decimal("1.1575")
    in_base = (worth / price).quantize(Decimal("1e-8"))
    kind = "LLLLLSSS--"[number % 10]
    base_total, base_debt, quote_total, quote_debt = {
        "L": ((level * worth / price).quantize(Decimal("1e-8")), Decimal(0), Decimal(0), worth),
        "S": (Decimal(0), in_base, (level * worth).quantize(Decimal("1e-8")), Decimal(0)),
        "-": (in_base, Decimal(0), worth, Decimal(0)),
    }[kind]
    debt = base_debt * price + quote_debt
    reported = (ratio * quote_debt - quote_total) / (base_total - ratio * base_debt) if debt else Decimal(0)
    return {
        "baseAsset": _asset(rnd, f"A{number}", base_total, base_debt, locks=number % 5 == 0),
        "quoteAsset": _asset(rnd, "USDT", quote_total, quote_debt, locks=number % 5 == 0),
        "symbol": f"A{number}USDT",
        "isolatedCreated": True,
        "marginLevel": f"{(base_total * price + quote_total) / debt:.8f}" if debt else "999",
        "marginLevelStatus": "EXCESSIVE",
        "marginRatio": "4.2",
        "indexPrice": _text(price),
        "liquidatePrice": _text(reported),
        "liquidateRate": f"{(reported / price - 1) * 100:.6f}" if debt else "0",
        "tradeEnabled": True,
        "enabled": True,
    }


def _answer(rows: int) -> dict[str, Any]:
    rnd = Random(rows)
    totals = {"totalAssetOfBtc": "12.5", "totalLiabilityOfBtc": "4.25", "totalNetAssetOfBtc": "8.25"}
    return {"assets": [_row(rnd, number) for number in range(rows)], **totals}


def _moved(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row a moment later: another index price, and what Binance computes from it."""
    price = Decimal(row["indexPrice"]) * Decimal("1.0001")
    level = Decimal(row["marginLevel"])
    return row | {
        "indexPrice": _text(price),
        "marginLevel": _text(level * Decimal("1.0001")) if level < 999 else "999",
        "baseAsset": row["baseAsset"] | {"netAssetOfBtc": _text(price.scaleb(-5))},
    }


def _bytes(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


# ----- what is measured


_ccxt = ccxt.binance()


def _answered(body: bytes) -> AccountsAnswer:
    """Read an answer as the adapter does: requests decodes the bytes, ccxt the JSON."""
    return parse_answer(_ccxt.parse_json(body.decode("utf-8", "replace")))


def _read(body: bytes) -> list[EntryDecision]:
    rows = _answered(body).rows
    return [decide(symbol, Side.LONG, Reading(row, 1.0), _RULES, 60.0) for symbol, row in rows.items()]


def _medians(tasks: Mapping[str, Task], rounds: int) -> dict[str, float]:
    """Return the median seconds of each task, all of them run in turn in each round."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 3):
        for name, task in tasks.items():
            started = time.thread_time()
            task()
            spent = time.thread_time() - started
            if number >= 3:
                times[name].append(spent)
    return {name: statistics.median(spent) for name, spent in times.items()}


def _figure(
    what: str,
    seconds: dict[str, float],
    against: str,
    most: float | None,
    *,
    target: str,
    rounds: int,
    note: str = "",
) -> Figure:
    ours = seconds.pop("ours")
    ratio = ours / seconds[against]
    return {
        "what": what,
        "ours": ours,
        "others": seconds,
        "ratio": ratio,
        "target": target,
        "reached": None if most is None else ratio < most,
        "rounds": rounds,
        "note": note,
        "unit": "s",
        "kind": "processor time",
    }


def _rounds(rows: int) -> int:
    return max(30_000 // (rows + 50), 40)


def _first(rows: int) -> str:
    return f"bytes of an answer to its decisions, {rows} rows"


def first_read(rows: int) -> list[Figure]:
    """Bytes of an answer to the decisions for all its pairs."""
    body = _bytes(_answer(rows))

    def fetch_balance() -> object:
        return _ccxt.parse_balance_custom(_ccxt.parse_json(body.decode()), "margin", "isolated")

    tasks: dict[str, Task] = {
        "ours": lambda: _read(body),
        "json.loads": lambda: json.loads(body),
        "ccxt's raw call": lambda: _ccxt.parse_json(body.decode()),
        "ccxt's fetch_balance": fetch_balance,
    }
    model = QueryIsolatedMarginAccountInfoResponse
    if model is not None:
        tasks["official SDK's model"] = lambda: model.from_dict(json.loads(body.decode()))
    rounds = _rounds(rows)
    seconds = _medians(tasks, rounds)
    what = _first(rows)
    note = "" if model is not None else _NO_SDK
    before = _BEFORE.get(rows)
    if before is None:
        shown = _figure(what, seconds, "json.loads", None, target="shown", rounds=rounds, note=note)
        return [shown]
    beside_json = _figure(
        what,
        dict(seconds),
        "json.loads",
        before,
        target=f"not slower than before: under {before} × json.loads",
        rounds=rounds,
        note=note,
    )
    beside_ccxt = _figure(
        what,
        dict(seconds),
        "ccxt's fetch_balance",
        0.5,
        target="under half of ccxt's fetch_balance",
        rounds=rounds,
        note=note,
    )
    return [beside_json, beside_ccxt]


def growth(figures: list[Figure]) -> list[Figure]:
    """Whether the time grows with the rows and no faster, from the figures of `first_read`."""
    by_rows = {rows: figure for rows in ROWS for figure in figures if figure["what"] == _first(rows)}
    fewest, most = 20, ROWS[-1]
    a_row = {rows: by_rows[rows]["ours"] / rows for rows in (fewest, most)}
    return [
        {
            "what": f"time a row at {most} rows, over that at {fewest}",
            "ours": a_row[most],
            "others": {f"a row of {fewest}": a_row[fewest]},
            "ratio": a_row[most] / a_row[fewest],
            "target": "linear: at most 1.25",
            "reached": a_row[most] <= 1.25 * a_row[fewest],
            "rounds": by_rows[most]["rounds"],
            "note": "",
            "unit": "s",
            "kind": "processor time",
        }
    ]


def one_decision(rows: int) -> Figure:
    """One decision on an account that was read, beside a look-up and a comparison."""
    answer = _answered(_bytes(_answer(rows)))
    readings = {symbol: Reading(row, 1.0) for symbol, row in answer.rows.items()}
    owing = [f"A{number}USDT" for number in range(min(rows, 5))]
    levels = dict.fromkeys(readings, 2.0)
    repeats = 20

    def decisions() -> object:
        for symbol in owing * (repeats // len(owing)):
            decide(symbol, Side.LONG, readings[symbol], _RULES, 60.0)
        return None

    def comparisons() -> object:
        return [levels[symbol] > 1.25 for symbol in owing * (repeats // len(owing))]

    rounds = 500
    seconds = {
        name: spent / repeats
        for name, spent in _medians(
            {"ours": decisions, "look-up and comparison": comparisons}, rounds
        ).items()
    }
    figure = _figure(
        f"one decision on the newest account, {rows} pairs",
        seconds,
        "look-up and comparison",
        float("inf"),
        target="under 20 µs",
        rounds=rounds,
    )
    return figure | {"reached": figure["ours"] < 20e-6}


def memory(rows: int = 100) -> Figure:
    """What is allocated after many reads of changing answers, beside what it was after a few; in bytes."""
    answer, bodies = _answer(rows), []
    for _ in range(50):
        answer = answer | {"assets": [_moved(row) for row in answer["assets"]]}
        bodies.append(_bytes(answer))
    held = {}
    # As a guard does, which has the newest accounts and no others.
    newest: list[EntryDecision] = []
    tracemalloc.start()
    for number, body in zip(range(1, _READS + 1), cycle(bodies), strict=False):
        newest[:] = _read(body)
        if number in {_EARLY_READS, _READS}:
            gc.collect()
            held[number] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    ratio = held[_READS] / held[_EARLY_READS]
    return {
        "what": f"memory held after {_READS} reads of {rows} rows",
        "ours": held[_READS],
        "others": {f"after {_EARLY_READS}": held[_EARLY_READS]},
        "ratio": ratio,
        "target": "flat: at most 1.05",
        "reached": ratio <= 1.05,
        "rounds": 1,
        "note": "",
        "unit": "bytes",
        "kind": "count",
    }


def figures() -> list[Figure]:
    """Measure all of it; a minute or two."""
    first = [figure for rows in ROWS for figure in first_read(rows)]
    return [*first, *growth(first), *map(one_decision, (5, 20, 100, 700)), memory()]


def _shown(value: float, unit: str) -> str:
    return f"{value * 1e6:,.1f} µs" if unit == "s" else f"{value:,.0f} {unit}"


def main() -> None:
    """Print the figures, one a line."""
    for figure in figures():
        unit = figure["unit"]
        others = ", ".join(f"{name} {_shown(value, unit)}" for name, value in figure["others"].items())
        mark = "yes" if figure["reached"] else "NO"
        sys.stdout.write(
            f"{figure['what']}: {_shown(figure['ours'], unit)} ({others}); ratio {figure['ratio']:.2f}; "
            f"{figure['target']}: {mark} {figure['note']}\n"
        )


if __name__ == "__main__":
    main()
