"""How Binance writes decimal numbers."""

from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_UP, Decimal

ZERO = Decimal(0)
ONE = Decimal(1)
SATOSHI = Decimal("0.00000001")

Number = Decimal | int | str


def rounded(value: Decimal) -> Decimal:
    """Eight decimals, the precision of every amount on Binance. Half up is assumed."""
    return value.quantize(SATOSHI, ROUND_HALF_UP)


def floored(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of the step that is not above the value."""
    return (value / step).to_integral_value(ROUND_DOWN) * step


def raised(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of the step that is not below the value."""
    return (value / step).to_integral_value(ROUND_CEILING) * step


def plain(value: Decimal) -> str:
    """Write a number as the margin API does: at most eight decimals, no padding (`"0"`, `"0.5"`)."""
    text = f"{rounded(value):f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


def fixed(value: Decimal) -> str:
    """Write a number as the spot API does: always eight decimals."""
    return f"{rounded(value):f}"
