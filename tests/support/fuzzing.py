"""What the fuzzing campaigns share: nasty answers, and a second opinion that shares no code with the package.

`documented_rows` says which rows of an answer have the documented shape, and `most` what such a row allows an
entry to be. Both work on the raw JSON and on fractions, and import nothing of the package.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from support.builders import long_row, placeholder, recorded, row, short_row

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


def campaign(short: int, long: int, **more: Any) -> settings:
    """Return a campaign's settings: `short` cases, the same in each run, or `long` random ones."""
    unchecked = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    if not LONG:
        return settings(
            max_examples=short, derandomize=True, deadline=None, suppress_health_check=unchecked, **more
        )
    factor = float(os.environ.get("FUZZ_FACTOR", "1"))
    return settings(
        max_examples=int(long * factor),
        derandomize=False,
        deadline=2000,  # milliseconds for one case: bounded, not fast
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=unchecked,
        **more,
    )


class Tally:
    """How many cases a campaign has tried, and how many ended in what."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()

    def __call__(self, what: str, times: int = 1) -> None:
        """Count it."""
        self.counts[what] += times

    def __str__(self) -> str:
        found = dict(self.counts)
        cases = found.pop("cases", 0)
        rest = ", ".join(f"{what} {number:,}" for what, number in sorted(found.items()))
        return f"fuzzing, {self.name}: {cases:,} cases; {rest}"

    def tell(self, config: pytest.Config) -> None:
        """Print the line past pytest's capture, also from a worker of xdist."""
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{self}", file=sys.stderr, flush=True)  # noqa: T201 - the figures of the run


# ----- the documented shape

_AMOUNTS = ("free", "locked", "borrowed", "interest", "totalAsset")
_SIGNED = ("netAsset", "netAssetOfBtc")
_DIGITS = frozenset("0123456789")
_MOST_DIGITS = 20


def plain_number(value: object, *, signed: bool) -> bool:
    """Whether a value is written as the endpoint writes numbers: digits, a point, and (`signed`) a minus."""
    if type(value) is not str:
        return False
    rest = value[1:] if signed and value[:1] == "-" else value
    whole, *parts = rest.split(".")
    return len(parts) <= 1 and all(0 < len(p) <= _MOST_DIGITS and set(p) <= _DIGITS for p in [whole, *parts])


def _documented_asset(asset: object) -> bool:
    return (
        isinstance(asset, dict)
        and type(asset.get("asset")) is str
        and all(type(asset.get(name)) is bool for name in ("borrowEnabled", "repayEnabled"))
        and all(plain_number(asset.get(name), signed=False) for name in _AMOUNTS)
        and all(plain_number(asset.get(name), signed=True) for name in _SIGNED)
        and _adds_up({name: Fraction(asset[name]) for name in (*_AMOUNTS, *_SIGNED)})
    )


def _adds_up(has: Mapping[str, Fraction]) -> bool:
    total = has["free"] + has["locked"]
    return has["totalAsset"] == total and has["netAsset"] == total - has["borrowed"] - has["interest"]


def documented_row(found: object) -> bool:
    """Whether a row has every field of the documentation, in its type, with assets that add up."""
    return (
        isinstance(found, dict)
        and type(found.get("symbol")) is str
        and type(found.get("marginLevelStatus")) is str
        and all(type(found.get(name)) is bool for name in ("isolatedCreated", "tradeEnabled"))
        and type(found.get("enabled", True)) is bool
        and all(
            plain_number(found.get(name), signed=False)
            for name in ("marginLevel", "marginRatio", "indexPrice", "liquidatePrice")
        )
        and plain_number(found.get("liquidateRate"), signed=True)
        and all(_documented_asset(found.get(name)) for name in ("baseAsset", "quoteAsset"))
        and found["symbol"] == found["baseAsset"]["asset"] + found["quoteAsset"]["asset"]
    )


_TOTALS = ("totalAssetOfBtc", "totalLiabilityOfBtc", "totalNetAssetOfBtc")


def documented_rows(payload: object) -> dict[str, Any] | None:
    """Return the documented rows of an answer by symbol, None where the answer as a whole is not so."""
    if not isinstance(payload, dict):
        return None
    rows = payload.get("assets")
    if not isinstance(rows, list) or any(
        name in payload and not plain_number(payload[name], signed=True) for name in _TOTALS
    ):
        return None
    symbols = [found.get("symbol") if isinstance(found, dict) else None for found in rows]
    if any(type(symbol) is not str or not symbol for symbol in symbols):
        return None
    return {
        symbol: found
        for symbol, found in zip(symbols, rows, strict=True)
        if symbols.count(symbol) == 1 and documented_row(found)
    }


def _no_number(name: str) -> None:
    raise ValueError(name)


def strictly_decoded(body: bytes) -> object:
    """Decode JSON as its standard has it; None for what is no JSON. Of doubled keys the last counts."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_int=lambda _: 0)
    except (ValueError, RecursionError):
        return None


# ----- what a documented row allows

_SAFE = ("EXCESSIVE", "NORMAL")
_RATIOS = dict.fromkeys(("10", "8.91", "8.05", "7.36", "6.79", "6.31", "5.91", "5.57", "5.26"), "1.05") | {
    "5": "1.15",
    "4.2": "1.158",
    "3.66": "1.165",
    "3.28": "1.173",
}
_HIGHEST_RATIO = "1.18"
_PLACE = Fraction(1, 10**8)
_ENDLESS = Fraction(10) ** 60
LOW_LEVEL, HIGH_LEVEL = Fraction(5, 4), Fraction(2)
LOW_DISTANCE, HIGH_DISTANCE = Fraction(1, 20), Fraction(1, 5)


class Books:
    """What a documented row owns and owes, in fractions."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        base, quote = found["baseAsset"], found["quoteAsset"]
        self.base, self.quote = Fraction(base["totalAsset"]), Fraction(quote["totalAsset"])
        self.base_debt = Fraction(base["borrowed"]) + Fraction(base["interest"])
        self.quote_debt = Fraction(quote["borrowed"]) + Fraction(quote["interest"])

    @property
    def owes(self) -> bool:
        """Whether there is any debt."""
        return bool(self.base_debt or self.quote_debt)

    def level(self, price: Fraction) -> Fraction:
        """Assets over debts at a price."""
        debt = self.base_debt * price + self.quote_debt
        return (self.base * price + self.quote) / debt if debt else _ENDLESS

    def borrowed(self, value: Fraction, side: str, price: Fraction) -> Books:
        """Return the books after a borrowed entry."""
        after = copy.copy(self)
        if side == "long":
            after.base, after.quote_debt = self.base + value / price, self.quote_debt + value
        else:
            after.quote, after.base_debt = self.quote + value, self.base_debt + value / price
        return after

    def move(self, ratio: Fraction, index: Fraction) -> Fraction:
        """Return the move of the price that liquidates, as a fraction of it."""
        if self.level(index) <= ratio:
            return Fraction(0)
        price = self.end(ratio)
        return abs(price - index) / index if price > 0 else _ENDLESS

    def end(self, ratio: Fraction) -> Fraction:
        """Return the price at which the level is `ratio`; 0 or less where there is none."""
        slope = self.base - ratio * self.base_debt
        return (ratio * self.quote_debt - self.quote) / slope if slope else Fraction(0)


def _ratio(found: Mapping[str, Any]) -> Fraction:
    leverage = Fraction(found["marginRatio"])
    return Fraction(
        next((ratio for text, ratio in _RATIOS.items() if Fraction(text) == leverage), _HIGHEST_RATIO)
    )


def _share(figure: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return min(max((figure - low) / (high - low), Fraction(0)), Fraction(1))


def is_absent(found: Mapping[str, Any]) -> bool:
    """Whether a documented row says that there is no account."""
    return not Books(found).owes and not (found["isolatedCreated"] and found.get("enabled", True))


def most(found: Mapping[str, Any], *, borrowed: bool = False) -> Fraction:
    """Return the stake factor that the default rules give a documented row."""
    if is_absent(found):
        return Fraction(0 if borrowed else 1)
    books, index = Books(found), Fraction(found["indexPrice"])
    if found["marginLevelStatus"] not in _SAFE or found["tradeEnabled"] is not True or not index:
        return Fraction(0)
    if not books.owes:
        return Fraction(1)
    level, said, ratio = books.level(index), Fraction(found["marginLevel"]), _ratio(found)
    if min(level, said) >= 999:
        # Dust: no price within reach liquidates, whatever is printed for it.
        return Fraction(1)
    apart = abs(level - said) > level / 50
    room = _room(books, index, Fraction(found["liquidatePrice"]), ratio)
    if apart or room is None:
        return Fraction(0)
    return min(
        _share(min(level, said), LOW_LEVEL, HIGH_LEVEL),
        _share(room, LOW_DISTANCE, HIGH_DISTANCE),
    )


def _room(books: Books, index: Fraction, said: Fraction, ratio: Fraction) -> Fraction | None:
    """Return the worse of the reported and the recomputed distance, None where the report cannot be right."""
    room = books.move(ratio, index)
    if not room:
        return room
    if not said:
        # Right only where no price of eight places liquidates.
        return room if books.end(ratio) < _PLACE else None
    ends = [books.level(max(said - _PLACE, Fraction(0))), books.level(said + _PLACE)]
    low, high = min(ends), max(ends)
    if high < Fraction("1.04") or low > Fraction("1.30") or low >= books.level(index):
        return None
    return min(room, abs(said - index) / index)


def keeps_limits(found: Mapping[str, Any], value: Fraction, side: str) -> bool:
    """Whether a documented row keeps both limits after every sampled part of a borrowed entry."""
    books, index, ratio = Books(found), Fraction(found["indexPrice"]), _ratio(found)
    for part in range(9):
        after = books.borrowed(value * part / 8, side, index)
        if after.owes and (after.level(index) < LOW_LEVEL or after.move(ratio, index) < LOW_DISTANCE):
            return False
    return True


# ----- nasty answers

SYMBOLS = ("BTCUSDT", "ETHUSDT", "FETUSDT")
_STATUSES = (
    "EXCESSIVE",
    "NORMAL",
    "MARGIN_CALL",
    "PRE_LIQUIDATION",
    "FORCE_LIQUIDATION",
    "SAFE",
    "excessive",
)
_TEXTS = (
    *(
        "",
        " ",
        "0",
        "-0",
        "-1",
        "+1",
        "1.",
        ".5",
        "1e400",
        "1E2",
        "NaN",
        "nan",
        "sNaN",
        "Infinity",
        "-Infinity",
    ),
    *(
        "1_000",
        " 1 ",
        "1\n",
        "1\x00",
        "\u0663",
        "\uff11\uff12",
        "1,5",
        "0x10",
        "1/3",
        "--1",
        "1.2.3",
        "null",
        "true",
        "\u20ac",
    ),
    *("9" * 20, "9" * 21, "9" * 10_000, "0." + "0" * 19 + "1", "0." + "9" * 10_000, "BTCUSDT", "EXCESSIVE"),
    *("0" * 20, "000.50", "999", "0.00000001", "1" + "\u0301", "\ud800", "\U0001d7ce", "\u22121", "1\u200f"),
)
_THINGS: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *([], {}, [[]], [None], {"symbol": None}, {"symbol": "BTCUSDT"}, [1, 2, 3], {"": ""}),
)


def _deep(depth: int, *, as_list: bool) -> object:
    thing: object = "1"
    for _ in range(depth):
        thing = [thing] if as_list else {"assets": thing}
    return thing


def nasty(rnd: Random) -> object:
    """Return something that should not be there."""
    kind = rnd.randrange(8)
    if kind < 4:
        return rnd.choice(_TEXTS)
    if kind < 6:
        return copy.deepcopy(rnd.choice(_THINGS))
    if kind == 6:
        return "".join(
            rnd.choice("0123456789.-+eE_ ,'NaIinf\u0660\uff11\x00") for _ in range(rnd.randrange(1, 12))
        )
    return _deep(rnd.choice((1, 3, 30, 300)), as_list=rnd.random() < 0.5)


def good_row(rnd: Random, symbol: str) -> dict[str, Any]:
    """Return a documented row: long, short, with both debts or none, tight or broken, or a placeholder."""
    base, quote = symbol[:-4], "USDT"
    level = Fraction(rnd.randrange(90, 400), 100)
    status = rnd.choice(_STATUSES) if rnd.random() < 0.2 else "EXCESSIVE"
    more: dict[str, Any] = {"base": base, "quote": quote, "status": status}
    if rnd.random() < 0.2:
        more["marginRatio"] = rnd.choice(("10", "5", "4.2", "3.28", "3", "1.5", "7", "0"))
    kind = rnd.randrange(7)
    if kind < 2:
        return long_row(level, symbol, **more)
    if kind < 4:
        return short_row(level, symbol, **more)
    if kind == 4:
        return placeholder(symbol, base=base)
    debts = (
        {} if kind == 5 else {"base_debt": rnd.randrange(5), "quote_debt": rnd.randrange(500), "ratio": "1.1"}
    )
    totals = {"base_total": rnd.randrange(20), "quote_total": rnd.randrange(900)}
    return row(symbol, index=rnd.choice((1, 50, "0.00000123")), **totals, **debts, **more)


def good_answer(rnd: Random) -> dict[str, Any]:
    """Return a documented answer."""
    if rnd.random() < 0.15:
        return recorded(rnd.choice(("fetusdt_long_2021", "ethbtc_no_debt_2022", "lunausdt_no_debt_2022")))
    symbols = rnd.sample(SYMBOLS, rnd.randrange(1, 4))
    made: dict[str, Any] = {"assets": [good_row(rnd, symbol) for symbol in symbols]}
    if rnd.random() < 0.5:
        made |= dict.fromkeys(_TOTALS, "1.5")
    return made


def places(thing: object) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key in a structure."""
    waiting = [thing]
    while waiting:
        here = waiting.pop()
        keys = range(len(here)) if isinstance(here, list) else here if isinstance(here, dict) else ()
        for key in list(keys):
            yield here, key
            waiting.append(here[key])


def _drop(rnd: Random, here: Any, key: Any) -> None:
    del here[key]


def _replace(rnd: Random, here: Any, key: Any) -> None:
    here[key] = nasty(rnd)


def _retype(rnd: Random, here: Any, key: Any) -> None:
    value = here[key]
    if isinstance(value, str):
        try:
            here[key] = rnd.choice((float, int, bool, list))(value)
        except (ValueError, OverflowError):
            here[key] = [value]
    else:
        here[key] = rnd.choice((str(value)[:50], [value], {"value": value}, None))


def _rename(rnd: Random, here: Any, key: Any) -> None:
    if isinstance(here, dict):
        changed = rnd.choice((key.upper(), key.lower(), key + " ", key[:-1], "_" + key, str(nasty(rnd))[:50]))
        here[changed] = here.pop(key)


def _double(rnd: Random, here: Any, key: Any) -> None:
    if isinstance(here, list):
        again = copy.deepcopy(here[key])
        if isinstance(again, dict) and rnd.random() < 0.5:
            again |= good_row(rnd, str(again.get("symbol") or "BTCUSDT"))
        here.insert(rnd.randrange(len(here) + 1), again)
    else:
        here[rnd.choice(list(here))] = copy.deepcopy(here[key])


def _spoil(rnd: Random, here: Any, key: Any) -> None:
    value = here[key]
    if isinstance(value, str):
        at = rnd.randrange(len(value) + 1)
        bad = rnd.choice(("", "-", "e", "_", " ", ".", "\uff11", "\u0663", "0", "9", "\x00", "9" * 25))
        here[key] = value[:at] + bad + value[at + rnd.randrange(2) :]
    else:
        here[key] = nasty(rnd)


def _flip(rnd: Random, here: Any, key: Any) -> None:
    if isinstance(here[key], bool):
        here[key] = not here[key]
    else:
        _another_number(rnd, here, key)


def _another_number(rnd: Random, here: Any, key: Any) -> None:
    if isinstance(here[key], str) and plain_number(here[key], signed=True):
        here[key] = rnd.choice(
            ("0", "1", "1.05", "2.5", "999", "1000000", "0.00000001", "99999999999999999999")
        )
    else:
        here[key] = nasty(rnd)


_CHANGES: tuple[Callable[[Random, Any, Any], None], ...] = (
    *(_drop, _replace, _replace, _retype, _rename, _double, _spoil, _spoil, _another_number, _flip),
)


def mutate(rnd: Random, answer: Any) -> Any:
    """Change one thing, at any depth, in place; return what is answered now."""
    found = list(places(answer))
    if not found or rnd.random() < 0.03:
        return nasty(rnd)
    here, key = rnd.choice(found)
    rnd.choice(_CHANGES)(rnd, here, key)
    return answer


def _doubled_key(rnd: Random, body: bytes) -> bytes:
    """Write one member of an object again, with another value, before or behind."""
    hits = [at for at in range(len(body)) if body[at : at + 1] == b"{"]
    names = (
        b"marginLevel",
        b"tradeEnabled",
        b"borrowed",
        b"symbol",
        b"assets",
        b"free",
        b"marginLevelStatus",
    )
    values = (b'"3"', b'"0"', b"true", b"null", b'"EXCESSIVE"', b"[]", b"3")
    if not hits:
        return body
    at = rnd.choice(hits) + 1
    return body[:at] + b'"' + rnd.choice(names) + b'":' + rnd.choice(values) + b"," + body[at:]


_BYTES = (
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"{",
    b"]",
    b",",
    b"e400",
    b"-",
    b"NaN",
)


def mutate_bytes(rnd: Random, body: bytes) -> bytes:
    """Change one stretch of the text of an answer."""
    if not body:
        return rnd.choice(_BYTES)
    start, other = rnd.randrange(len(body)), rnd.randrange(len(body))
    end = min(len(body), start + rnd.choice((1, 1, 2, 8, 100)))
    head, piece, tail = body[:start], body[start:end], body[end:]
    changed = (
        head,
        head + tail,
        head + rnd.choice(_BYTES) + piece + tail,
        head + bytes([body[start] ^ (1 << rnd.randrange(8))]) + body[start + 1 :],
        head + piece + piece + tail,
        head + body[other : other + len(piece)] + tail,
        _doubled_key(rnd, body),
    )
    return rnd.choice(changed)
