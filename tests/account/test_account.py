"""The endpoint's answer: strict, frozen, complete, and one bad row spoils only itself."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from support.builders import Row, account, answer, dust_row, long_row, parsed, placeholder, recorded, row

from freqtrade_isolated_margin.account.records import (
    Asset,
    MarginLevelStatus,
    PairAccount,
    Unreadable,
    parse_answer,
    plain_decimal,
    row_as_written,
)
from freqtrade_isolated_margin.errors import AnswerError

D = Decimal

ROW_NUMBERS = ["marginLevel", "marginRatio", "indexPrice", "liquidatePrice", "liquidateRate"]
ASSET_NUMBERS = ["free", "locked", "borrowed", "interest", "netAsset", "netAssetOfBtc", "totalAsset"]
SIGNED = {"liquidateRate", "netAsset", "netAssetOfBtc"}
BOOLS = ["isolatedCreated", "tradeEnabled", "baseAsset.borrowEnabled", "quoteAsset.repayEnabled"]
STRINGS = ["marginLevelStatus", "baseAsset.asset", "quoteAsset.asset"]
NUMBERS = [
    *ROW_NUMBERS,
    *(f"{side}.{name}" for side in ("baseAsset", "quoteAsset") for name in ASSET_NUMBERS),
]
REQUIRED = [
    *NUMBERS,
    *STRINGS,
    "isolatedCreated",
    "tradeEnabled",
    "baseAsset",
    "quoteAsset",
    *(f"{side}.{name}" for side in ("baseAsset", "quoteAsset") for name in ("borrowEnabled", "repayEnabled")),
]
ASSET_FIELDS = [
    "asset",
    "borrow_enabled",
    "repay_enabled",
    *("free", "locked", "borrowed", "interest", "net_asset", "net_asset_of_btc", "total_asset"),
]
ROW_FIELDS = [
    "symbol",
    *("isolated_created", "enabled", "trade_enabled"),
    *("margin_level", "margin_level_status", "margin_ratio"),
    *("index_price", "liquidate_price", "liquidate_rate"),
    *("base_asset", "quote_asset"),
]
DELETE = object()


def changed(path: str, value: object) -> Row:
    """Return a good row with one field replaced, or deleted."""
    built = long_row()
    *way, name = path.split(".")
    target = built
    for step in way:
        target = target[step]
    if value is DELETE:
        del target[name]
    else:
        target[name] = value
    return built


def assert_unreadable(built: Row, name: str) -> None:
    """Check that a row is refused, that its field is named, and that another row lives."""
    rows = parse_answer(answer(built, long_row(symbol="ETHUSDT"))).rows
    bad = rows["BTCUSDT"]
    assert isinstance(bad, Unreadable)
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    assert name in bad.why or snake in bad.why
    assert isinstance(rows["ETHUSDT"], PairAccount)


# ----- a good row


def figures(record: PairAccount | Asset) -> dict[str, Any]:
    """Return all of a record that Binance documents, by our names."""
    names = ASSET_FIELDS if isinstance(record, Asset) else ROW_FIELDS
    found = {name: getattr(record, name) for name in names}
    return {name: figures(value) if isinstance(value, Asset) else value for name, value in found.items()}


def test_every_documented_field_of_a_row_is_there() -> None:
    """The recorded long has all its fields, by their names and as decimals."""
    fet = parse_answer(recorded("fetusdt_long_2021")).rows["FETUSDT"]
    assert isinstance(fet, PairAccount)
    assert figures(fet) == {
        "symbol": "FETUSDT",
        "isolated_created": True,
        "enabled": None,
        "trade_enabled": True,
        "margin_level": D("1.34371923"),
        "margin_level_status": MarginLevelStatus.EXCESSIVE,
        "margin_ratio": D("4.2"),
        "index_price": D("0.60221962"),
        "liquidate_price": D("0.51628838"),
        "liquidate_rate": D("-14.269087"),
        "base_asset": {
            "asset": "FET",
            "borrow_enabled": True,
            "repay_enabled": True,
            "free": D("1463.4144"),
            "locked": D("491.3"),
            "borrowed": D(0),
            "interest": D(0),
            "net_asset": D("1954.7144"),
            "net_asset_of_btc": D("0.02088936"),
            "total_asset": D("1954.7144"),
        },
        "quote_asset": {
            "asset": "USDT",
            "borrow_enabled": True,
            "repay_enabled": True,
            "free": D("20.65536756"),
            "locked": D(0),
            "borrowed": D("889.66509394"),
            "interest": D("0.05560407"),
            "net_asset": D("-869.06533045"),
            "net_asset_of_btc": D("-0.01545198"),
            "total_asset": D("20.65536756"),
        },
    }


@pytest.mark.parametrize("name", ["fetusdt_long_2021", "ethbtc_no_debt_2022", "lunausdt_no_debt_2022"])
def test_every_recorded_row_is_readable(name: str) -> None:
    """What Binance really answered is never refused."""
    rows = parse_answer(recorded(name)).rows
    assert rows
    assert all(isinstance(row, PairAccount) for row in rows.values())


def test_a_record_is_frozen() -> None:
    """Nobody changes an account after it was read."""
    built = account(base_total=1)
    with pytest.raises(AttributeError):
        built.margin_level = D(999)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        built.base_asset.free = D(999)  # type: ignore[misc]


def test_a_record_can_be_pickled_and_copied() -> None:
    """Before and after anything was worked out from it: hyperopt carries what it finds to other processes."""
    built = account(base_total=1, quote_debt=5)
    for _ in range(2):
        assert pickle.loads(pickle.dumps(built)) == deepcopy(built) == built
        assert built.base_asset.debt + built.margin_level


def test_the_rows_of_an_answer_cannot_be_changed() -> None:
    """The mapping by symbol is read-only."""
    with pytest.raises(TypeError):
        parse_answer(answer(row())).rows["BTCUSDT"] = Unreadable("no")  # type: ignore[index]


def test_interest_is_owed_in_addition_to_what_was_borrowed() -> None:
    """Each asset's debt is its own borrowed and its own interest."""
    built = account(
        base_total=5, base_debt="0.5", base_interest="0.25", quote_debt="70", quote_interest="0.125", index=9
    )
    assert built.base_asset.debt == D("0.75")
    assert built.quote_asset.debt == D("70.125")
    assert built.holdings == (D(5), D(0), D("0.75"), D("70.125"))


def test_a_sum_of_debts_does_not_depend_on_the_callers_precision() -> None:
    """Five digits of the caller's do not swallow the interest."""
    with localcontext(Context(prec=5)):
        assert account(quote_debt="70000", quote_interest="0.125").quote_asset.debt == D("70000.125")


@pytest.mark.parametrize("field", ["base_debt", "base_interest", "quote_debt", "quote_interest"])
def test_the_smallest_debt_in_any_field_is_a_debt(field: str) -> None:
    """Borrowed or interest, base or quote: one of the four is enough."""
    assert account(**{field: "0.00000001"}).has_debt


@pytest.mark.parametrize("level", ["999", "0.00000000", "1.1", "0"])
def test_no_debt_comes_from_the_debts(level: str) -> None:
    """No margin level makes a debt."""
    assert not account(base_total=1, marginLevel=level).has_debt


@pytest.mark.parametrize("level", ["999", "0"])
def test_a_debt_is_one_whatever_the_level_says(level: str) -> None:
    """No margin level takes a debt away."""
    assert account(quote_debt=1, marginLevel=level).has_debt


@pytest.mark.parametrize("status", list(MarginLevelStatus))
def test_every_documented_status_is_known(status: MarginLevelStatus) -> None:
    """The five statuses come out as members."""
    built = account(status=str(status))
    assert built.margin_level_status is status
    assert built.status_is_known


@pytest.mark.parametrize("status", ["", "excessive", "EXCESSIVE ", "LIQUIDATED", "name", "__class__"])
def test_an_unknown_status_is_kept_and_known_to_be_unknown(status: str) -> None:
    """A new word of Binance's does not make the row unreadable."""
    built = account(status=status)
    assert built.margin_level_status == status
    assert not built.status_is_known


@pytest.mark.parametrize(
    "make",
    [
        lambda built: built | {"newField": {"deep": [1, None]}},
        lambda built: built | {"baseAsset": built["baseAsset"] | {"other": "NaN"}},
        lambda built: built | {"margin_level": "0.5", "has_debt": False},
    ],
)
def test_unknown_fields_are_ignored(make: Callable[[Row], Row]) -> None:
    """Binance may add fields; a name of ours among them sets nothing."""
    assert parsed(make(long_row())) == parsed(long_row())


def test_a_row_may_come_without_enabled() -> None:
    """Older answers do not have it: that is None, and not disabled."""
    built = long_row()
    del built["enabled"]
    read = parsed(built)
    assert isinstance(read, PairAccount)
    assert read.enabled is None
    assert not read.is_absent


def test_what_follows_from_a_row_is_worked_out_once() -> None:
    """Whoever asks again gets the same object; the class itself has the description."""
    built = account(base_total=1, quote_debt=5)
    assert built.holdings is built.holdings
    assert built.base_asset.total_asset is built.base_asset.total_asset
    assert "owns and owes" in str(PairAccount.holdings.__doc__)


def test_equal_rows_are_equal_whatever_was_asked_of_them() -> None:
    """What was worked out of an account is no part of it."""
    asked, other = account(base_total=1, quote_debt=5), account(base_total=1, quote_debt=5)
    assert asked.holdings
    assert asked.base_asset.debt == 0
    assert asked == other
    assert hash(asked) == hash(other)
    assert repr(asked) == repr(other)


def test_a_row_is_written_as_it_came() -> None:
    """Each documented field with its text, zeros at its end included; nothing that it did not have."""
    built = long_row(indexPrice="50000.00000000", marginRatio="007", liquidateRate="-0")
    del built["enabled"]
    read = parsed(built | {"newField": 1})
    assert isinstance(read, PairAccount)
    assert read.holdings
    assert row_as_written(read) == built


# ----- dust


DUST = "0.00000001"
BEYOND_SENSE = "99999999999999999999"


@pytest.mark.parametrize("printed", ["0", BEYOND_SENSE, "50000", "0.00000001"])
@pytest.mark.parametrize("debt", [{}, {"base_debt": "0", "quote_interest": DUST}])
def test_the_liquidation_price_of_dust_means_nothing(debt: dict[str, str], printed: str) -> None:
    """It owes, and no price within reach liquidates it."""
    built = parsed(dust_row(printed, **debt))
    assert isinstance(built, PairAccount)
    assert built.has_debt
    assert not built.can_be_liquidated
    assert built.liquidation_price is None


@pytest.mark.parametrize(
    "contents",
    [
        # 998.99 and 999 at the index price.
        {"base_debt": "0.0001", "quote_total": "4994.95", "marginLevel": "999"},
        {"base_debt": "0.0001", "quote_total": 5000, "marginLevel": "998.99"},
        # Nobody knows what it owes.
        {"base_debt": DUST, "quote_total": 5000, "marginLevel": "999", "indexPrice": "0"},
    ],
)
def test_a_debt_that_matters_is_no_dust(contents: dict[str, Any]) -> None:
    """Both levels say so: the reported one and the one at the index price."""
    built = account(liquidatePrice="7", **contents)
    assert built.can_be_liquidated
    assert built.liquidation_price == 7


def test_an_account_without_debt_has_no_liquidation_price() -> None:
    """Whatever is printed for it."""
    assert account(quote_total=5000, liquidatePrice="7").liquidation_price is None


# ----- absent


@pytest.mark.parametrize("level", ["999", "0", "1.5"])
def test_a_placeholder_row_is_absent_whatever_its_level(level: str) -> None:
    """A pair whose account was never created looks healthy, and is none."""
    read = parsed(placeholder(marginLevel=level))
    assert isinstance(read, PairAccount)
    assert read.is_absent


def test_a_disabled_account_that_owes_nothing_is_absent() -> None:
    """Assets alone do not make it active."""
    assert account(base_total=1, enabled=False).is_absent


@pytest.mark.parametrize("flags", [{"enabled": False}, {"isolatedCreated": False}])
def test_an_account_that_owes_is_not_absent(flags: dict[str, bool]) -> None:
    """Whoever owes can be liquidated."""
    assert not account(base_total=1, quote_debt=1, **flags).is_absent


def test_an_enabled_account_without_debt_is_not_absent() -> None:
    """It exists, and it is empty."""
    assert not account().is_absent


# ----- numbers


GOOD_NUMBERS = ["0", "999", "0.51628838", "0.00000000", "12345678901234567890.12345678901234567890", "007"]
BAD_NUMBERS: list[Any] = [
    "1e400",
    "1E5",
    "1_000",
    " 1 ",
    "1\n",
    "\uff11",
    "\u0661",
    "1,5",
    "NaN",
    "sNaN",
    "Infinity",
    "-Infinity",
    "inf",
    "",
    "-",
    "+1",
    "1.",
    ".5",
    "--1",
    "1.2.3",
    "0x10",
    "1" * 10_000,
    "0." + "1" * 10_000,
    "1\x00",
    1,
    1.5,
    0,
    True,
    False,
    None,
    [],
    ["1"],
    {},
    float("nan"),
    float("inf"),
    b"1",
]
BAD_IDS = [repr(value)[:20] for value in BAD_NUMBERS]


@pytest.mark.parametrize("text", GOOD_NUMBERS)
def test_a_plain_number_is_read_as_it_stands(text: str) -> None:
    """Not a digit is lost."""
    assert plain_decimal(text) == Decimal(text)
    assert plain_decimal(f"-{text}") == Decimal(f"-{text}")


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=BAD_IDS)
def test_anything_but_a_plain_number_is_refused(value: object) -> None:
    """Whatever `Decimal` or JSON would take besides."""
    with pytest.raises(ValueError, match="plain decimal"):
        plain_decimal(value)


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=BAD_IDS)
@pytest.mark.parametrize(
    "path", ["marginLevel", "liquidateRate", "quoteAsset.interest", "baseAsset.netAsset"]
)
def test_a_row_with_a_bad_number_is_unreadable(path: str, value: object) -> None:
    """In the row and in its assets, signed or not."""
    assert_unreadable(changed(path, value), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("value", [None, "1e1", 1])
@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_is_checked(path: str, value: object) -> None:
    """No numeric field is left out."""
    assert_unreadable(changed(path, value), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("value", ["-1", "-0.00000001", "-0", "-0.0"])
@pytest.mark.parametrize("path", [path for path in NUMBERS if path.split(".")[-1] not in SIGNED])
def test_what_cannot_be_negative_is_refused_where_it_is(path: str, value: str) -> None:
    """Prices, ratios, levels, amounts and debts; a negative zero is no zero either."""
    assert_unreadable(changed(path, value), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("path", ["liquidateRate", "baseAsset.netAssetOfBtc", "quoteAsset.netAssetOfBtc"])
def test_what_may_be_negative_is_read(path: str) -> None:
    """Net assets and the rate have a sign."""
    assert isinstance(parsed(changed(path, "-1.5")), PairAccount)


@pytest.mark.parametrize("name", ["free", "locked", "totalAsset", "borrowed", "interest", "netAsset"])
@pytest.mark.parametrize("side", ["baseAsset", "quoteAsset"])
def test_an_asset_that_does_not_add_up_is_unreadable(side: str, name: str) -> None:
    """Total is free and locked, net is total less the debt: to the last place, in either asset."""
    built = row(base_total=5, base_locked=1, base_debt=2, quote_total=7, quote_debt=3, quote_interest="0.5")
    assert isinstance(parsed(built), PairAccount)
    built[side][name] = f"{D(built[side][name]) + D('0.00000001'):f}"
    bad = parsed(built)
    assert isinstance(bad, Unreadable)
    assert "contradict" in bad.why
    assert built[side]["asset"] in bad.why


@pytest.mark.parametrize("name", ["borrowed", "interest"])
def test_a_debt_that_the_net_asset_does_not_know_is_a_contradiction(name: str) -> None:
    """Total and net are written the same, and something is owed."""
    built = row(base_total=5)
    assert built["baseAsset"]["netAsset"] == built["baseAsset"]["totalAsset"]
    built["baseAsset"][name] = "1"
    bad = parsed(built)
    assert isinstance(bad, Unreadable)
    assert "netAsset of BTC" in bad.why


def test_a_wrong_sum_of_an_odd_asset_is_told() -> None:
    """Its name may be as odd as a database lets it be: half a character, or very long."""
    for name in ("\ud800", "X" * 1000):
        bad = parsed(changed("baseAsset", long_row()["baseAsset"] | {"asset": name, "locked": "7"}))
        assert isinstance(bad, Unreadable)
        assert "contradict" in bad.why
        assert len(bad.why) < 200


def test_a_sum_of_many_digits_is_checked_exactly() -> None:
    """The last of forty digits counts, whatever the caller's precision."""
    built = row(base_total=1)
    many = "12345678901234567890.12345678901234567890"
    built["baseAsset"] |= {"free": many, "totalAsset": many, "netAsset": many}
    with localcontext(Context(prec=5)):
        assert isinstance(parsed(built), PairAccount)
        built["baseAsset"]["netAsset"] = many[:-1] + "1"
        assert isinstance(parsed(built), Unreadable)


# ----- shapes


@pytest.mark.parametrize("path", REQUIRED)
def test_a_row_without_a_documented_field_is_unreadable(path: str) -> None:
    """Nothing has a default that would speak for the account."""
    assert_unreadable(changed(path, DELETE), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("value", [None, "true", 1, 0, "", []])
@pytest.mark.parametrize("path", BOOLS)
def test_a_flag_must_be_a_json_boolean(path: str, value: object) -> None:
    """A word or a number that means one is none."""
    assert_unreadable(changed(path, value), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("value", [None, "true", 1, 0, "", []])
def test_enabled_is_a_boolean_where_it_is_there(value: object) -> None:
    """It may be missing, but not be something else: that is outside of the documented shape."""
    assert_unreadable(changed("enabled", value), "enabled")


@pytest.mark.parametrize("value", [None, 1, True, [], {}])
@pytest.mark.parametrize("path", STRINGS)
def test_a_word_must_be_a_string(path: str, value: object) -> None:
    """Names and the status are strings."""
    assert_unreadable(changed(path, value), path.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize("value", [None, "BTC", 1, [], [{}], {}])
@pytest.mark.parametrize("path", ["baseAsset", "quoteAsset"])
def test_an_asset_must_be_an_object_with_its_fields(path: str, value: object) -> None:
    """Half an account is none."""
    assert_unreadable(changed(path, value), path)


def test_the_reason_of_an_unreadable_row_is_short_and_shows_no_value() -> None:
    """What was wrong is named, but a hostile value is not repeated."""
    bad = parsed(changed("marginLevel", "x" * 10_000))
    assert isinstance(bad, Unreadable)
    assert len(bad.why) < 200
    assert "xx" not in bad.why


@pytest.mark.parametrize("second", [long_row(), long_row(level=2), {"symbol": "BTCUSDT"}])
def test_a_row_that_comes_twice_is_unreadable(second: Row) -> None:
    """Which of the two is true nobody knows, even if they are equal; the others live."""
    rows = parse_answer(answer(long_row(), long_row(symbol="ETHUSDT"), second)).rows
    assert isinstance(rows["BTCUSDT"], Unreadable)
    assert isinstance(rows["ETHUSDT"], PairAccount)


def test_a_row_that_comes_three_times_stays_unreadable() -> None:
    """The third does not heal the second."""
    assert isinstance(parse_answer(answer(*[long_row()] * 3)).rows["BTCUSDT"], Unreadable)


def test_rows_are_found_by_symbol_and_not_by_position() -> None:
    """The order of the answer means nothing."""
    first, second = long_row(level=2), long_row(level=3, symbol="ETHUSDT")
    assert parse_answer(answer(first, second)).rows == parse_answer(answer(second, first)).rows


@pytest.mark.parametrize(
    "bad",
    [{}, {"symbol": ""}, {"symbol": None}, {"symbol": 7}, None, "BTCUSDT", 3, [], row("", base="", quote="")],
)
def test_a_row_without_a_symbol_spoils_the_answer(bad: object) -> None:
    """Whose account it is nobody knows."""
    with pytest.raises(AnswerError, match="without a symbol"):
        parse_answer({"assets": [long_row(), bad]})


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "<html></html>",
        '{"assets": []',
        None,
        [],
        [long_row()],
        5,
        True,
        b"{}",
        {},
        {"code": 0},
        *({"assets": assets} for assets in (None, {}, "[]", {"BTCUSDT": long_row()})),
    ],
)
def test_what_is_no_object_with_a_list_of_rows_is_no_account(payload: object) -> None:
    """Ccxt hands on whatever came: a raw string, a list, a number."""
    with pytest.raises(AnswerError):
        parse_answer(payload)


def test_an_answer_without_rows_is_one() -> None:
    """A user may have no isolated account at all."""
    assert not parse_answer({"assets": []}).rows


# ----- totals


def test_the_totals_are_read_where_they_come() -> None:
    """The answer for all accounts has three."""
    read = parse_answer(
        answer(row(), totalAssetOfBtc="1.5", totalLiabilityOfBtc="0.5", totalNetAssetOfBtc="-1.0"), 70
    )
    assert (read.total_asset_of_btc, read.total_liability_of_btc, read.total_net_asset_of_btc) == (
        D("1.5"),
        D("0.5"),
        D("-1.0"),
    )
    assert read.used_weight == 70


def test_the_totals_are_none_where_they_do_not_come() -> None:
    """The answer to `symbols` has none."""
    read = parse_answer(answer(row()))
    assert read.total_asset_of_btc is read.total_liability_of_btc is read.total_net_asset_of_btc is None


@pytest.mark.parametrize("name", ["totalAssetOfBtc", "totalLiabilityOfBtc", "totalNetAssetOfBtc"])
@pytest.mark.parametrize("value", [None, 1.5, "NaN", "1e9", ""])
def test_a_total_that_is_no_number_spoils_the_answer(name: str, value: object) -> None:
    """An answer that breaks its shape at the top is not believed below."""
    with pytest.raises(AnswerError, match=name):
        parse_answer(answer(row(), **{name: value}))


def test_reading_leaves_the_payload_alone() -> None:
    """The parser does not write into what it was given."""
    payload = answer(long_row())
    before = deepcopy(payload)
    parse_answer(payload)
    assert payload == before


def test_an_answer_survives_the_way_through_json() -> None:
    """What was built here is what the wire would carry."""
    payload = answer(long_row(), placeholder("ETHUSDT"))
    assert parse_answer(json.loads(json.dumps(payload))) == parse_answer(payload)


@pytest.mark.parametrize(("base", "quote"), [("XYZ", "USDT"), ("USDT", "BTC"), ("BTC", "BUSD")])
def test_a_row_whose_assets_are_not_those_of_its_symbol_is_unreadable(base: str, quote: str) -> None:
    """Swapped or foreign assets would put the debt on the wrong side, or be another pair's."""
    found = parsed(row(base=base, quote=quote, base_total=3, index=100))
    assert isinstance(found, Unreadable)
    assert "not those of its symbol" in found.why
