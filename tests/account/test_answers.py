"""The text of answers: what is read at once is what the decoder would give, and memory changes nothing."""

from __future__ import annotations

import json
from copy import deepcopy
from decimal import Context, Decimal, localcontext
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import Row, answer, long_row, placeholder, recorded, row, short_row
from support.fuzzing import campaign, documented_rows, good_answer, mutate, mutate_bytes, strictly_decoded

from freqtrade_isolated_margin.account.answers import AnswerReader
from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import AccountsAnswer, PairAccount, Unreadable, parse_answer
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.errors import AnswerError
from freqtrade_isolated_margin.rules.decide import Reading, decide
from freqtrade_isolated_margin.rules.rules import Rules

TOTALS = {"totalAssetOfBtc": "1.5", "totalLiabilityOfBtc": "0.5", "totalNetAssetOfBtc": "-1.0"}
RANDOMS = st.randoms(use_true_random=False)


def written(payload: object) -> str:
    """Write an answer as the endpoint does."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False)


def decoded(text: str) -> AccountsAnswer:
    """Read an answer by decoding it."""
    return parse_answer(json.loads(text))


def exactly(found: AccountsAnswer) -> str:
    """Return all that an answer says, to the last digit of how it is written."""
    return repr((list(found.rows.items()), found))


# ----- what is read at once


@pytest.mark.parametrize(
    "payload",
    [
        answer(long_row()),
        answer(long_row(), short_row(symbol="ETHUSDT"), placeholder("SOLUSDT"), **TOTALS),
        answer(
            row(base_total=5, base_locked=1, base_debt=2, quote_total=7, quote_debt=3, quote_interest="0.5")
        ),
        answer(row("币安人生USDT", base_total=1)),
        answer(long_row(status="SPLENDID")),
        answer(long_row(), long_row()),
        answer(long_row(), row("XUSDT", "Y")),
        answer(*[long_row(symbol=f"A{number}USDT") for number in range(50)]),
        *map(recorded, ("ethbtc_no_debt_2022",)),
    ],
    ids=lambda payload: written(payload)[-60:],
)
def test_an_answer_as_the_endpoint_writes_it_is_read_at_once(payload: dict[str, Any]) -> None:
    """And says what its decoded JSON says."""
    text = written(payload)
    found = AnswerReader().read(text)
    assert found is not None
    assert exactly(found) == exactly(decoded(text))


def test_a_row_may_come_without_enabled() -> None:
    """Older answers are read at once, too."""
    built = long_row()
    del built["enabled"]
    found = AnswerReader().read(written(answer(built)))
    assert found is not None
    read = found.rows["BTCUSDT"]
    assert isinstance(read, PairAccount)
    assert read.enabled is None


def test_sums_that_do_not_add_up_are_seen_whether_there_are_zeros_or_not() -> None:
    """What is written the same need not be added up; what is not is."""
    for built in (long_row(), row(base_total=5, base_locked=1, quote_total=7, quote_locked=2, quote_debt=3)):
        for side in ("baseAsset", "quoteAsset"):
            for name in ("free", "locked", "borrowed", "interest", "netAsset", "totalAsset"):
                bad = deepcopy(built)
                bad[side][name] = f"{Decimal(bad[side][name]) + Decimal('0.00000001'):f}"
                found = AnswerReader().read(written(answer(bad)))
                assert found is not None
                read = found.rows["BTCUSDT"]
                assert isinstance(read, Unreadable), (side, name)
                assert "contradict" in read.why


GOOD = written(answer(long_row(), short_row(symbol="ETHUSDT"), **TOTALS))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"tradeEnabled":true', '"tradeEnabled":1'),
        ('"tradeEnabled":true', '"tradeEnabled":"true"'),
        ('"tradeEnabled":true', '"tradeEnabled":null'),
        ('"enabled":true', '"enabled":null'),
        ('"borrowEnabled":true', '"borrowEnabled":True'),
        ('"marginRatio":"10"', '"marginRatio":10'),
        ('"marginRatio":"10"', '"marginRatio":NaN'),
        ('"marginRatio":"10"', '"marginRatio":"10\\n"'),
        ('"marginRatio":"10"', '"marginRatio":"1e1"'),
        ('"marginRatio":"10"', '"marginRatio":"-10"'),
        ('"marginRatio":"10"', '"marginRatio":"\uff11\uff10"'),
        ('"marginRatio":"10"', '"marginRatio":"' + "1" * 21 + '"'),
        ('"marginRatio":"10"', '"marginRatio":"10."'),
        ('"marginRatio":"10"', '"marginRatio":" 10"'),
        ('"marginRatio":"10"', '"marginRatio":"10","marginRatio":"10"'),
        ('"marginRatio":"10"', '"marginRatio":"10","more":"1"'),
        ('"marginRatio":"10",', ""),
        ('"marginRatio":"10",', ' "marginRatio":"10",'),
        ('"EXCESSIVE"', '"EXCESS\\u0049VE"'),
        ('"EXCESSIVE"', '"EXCESS\ufffdIVE"'),
        ('"EXCESSIVE"', f'"EXCESS{chr(0xD800)}IVE"'),
        ('"EXCESSIVE"', '"EXCESS\nIVE"'),
        ('"EXCESSIVE"', '""'),
        ('{"assets":[', '{"assets":['[:-1]),
        ('{"assets":[', '{"assets":[,'),
        ('{"assets":[', ' {"assets":['),
        ("},{", "},,{"),
        ("},{", "}{"),
        ("}],", "},],"),
        ("}],", "}]"),
        ('"totalAssetOfBtc":"1.5"', '"totalAssetOfBtc":1.5'),
        ('"totalAssetOfBtc":"1.5"', '"totalAssetOfBtc":"1.5","totalAssetOfBtc":"1.5"'),
        ('"-1.0"}', '"-1.0"}}'),
        ('"-1.0"}', '"-1.0"} '),
        ('"-1.0"}', '"-1.0"'),
        ('"-1.0"}', '"-1.0","assets":[]}'),
        ('"-1.0"}', '"-1.0","code":-1003}'),
    ],
)
def test_what_is_written_in_another_way_is_left_to_the_decoder(old: str, new: str) -> None:
    """Whether it is JSON or not, and whether anything else of the answer is known already or not."""
    assert old in GOOD
    reader = AnswerReader()
    assert reader.read(GOOD) is not None
    for text in (GOOD.replace(old, new), GOOD.replace(old, new, 1)):
        assert reader.read(text) is None
        assert AnswerReader().read(text) is None


@pytest.mark.parametrize("nothing", ['{"baseAsset":}', "{}", "", '{"baseAsset":},{"baseAsset":}'])
def test_rows_without_anything_in_them_are_left_to_the_decoder(nothing: str) -> None:
    """What surrounds a row is no row, whether one is known or not."""
    reader = AnswerReader()
    for _ in range(2):
        assert reader.read(f'{{"assets":[{nothing}]}}') is None
        reader.read(GOOD)


@pytest.mark.parametrize("cut", range(0, len(GOOD), 7))
def test_an_answer_that_breaks_off_is_not_read(cut: int) -> None:
    """Not even when all that there is of it stood in the answer before."""
    reader = AnswerReader()
    reader.read(GOOD)
    assert reader.read(GOOD[:cut]) is None


def compared(reader: AnswerReader, text: str, payload: object) -> AccountsAnswer | None:
    """Read with a reader's memory, and check the outcome against the JSON and a reader without memory."""
    found = reader.read(text)
    fresh = AnswerReader().read(text)
    assert (found is None) == (fresh is None)
    if found is not None and fresh is not None:
        assert exactly(found) == exactly(fresh) == exactly(parse_answer(payload))
        readable = {symbol for symbol, read in found.rows.items() if isinstance(read, PairAccount)}
        assert readable == set(documented_rows(payload) or {})
    return found


@campaign(300, 20_000)
@given(RANDOMS, st.integers(1, 3))
def test_whatever_is_read_at_once_is_json_that_says_so(rnd: Random, changes: int) -> None:
    """Mutated bytes: never more than the strict decoder makes of them, with every name once."""
    reader = AnswerReader()
    body = written(good_answer(rnd)).encode()
    reader.read(body.decode())
    for _ in range(changes):
        body = mutate_bytes(rnd, body)
        compared(reader, body.decode("utf-8", "replace"), strictly_decoded(body))


@campaign(300, 20_000)
@given(RANDOMS)
def test_a_memory_changes_nothing(rnd: Random) -> None:
    """Answer after answer: rows that change, move, come, go and come twice."""
    reader = AnswerReader()
    payload = good_answer(rnd)
    for _ in range(6):
        compared(reader, written(payload), payload)
        spoilt = mutate(rnd, deepcopy(payload))
        compared(reader, json.dumps(spoilt, separators=(",", ":")), spoilt)
        payload = next_answer(rnd, payload)


def next_answer(rnd: Random, payload: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that might follow a good one; now and then none that is good."""
    after = deepcopy(payload)
    rows: list[Row] = after["assets"]
    for _ in range(rnd.randrange(3)):
        what, chosen = rnd.randrange(6), rnd.choice(rows)
        if what == 0:
            rnd.shuffle(rows)
        elif what == 1 and len(rows) > 1:
            rows.remove(chosen)
        elif what == 2:
            rows.insert(rnd.randrange(len(rows)), deepcopy(chosen))
        elif what == 3:
            chosen["indexPrice"] = f"{Decimal(chosen['indexPrice']) + 1:f}"
        elif what == 4:
            chosen["quoteAsset"]["locked"] = rnd.choice(("0", "0.00000000", "1"))
        else:
            rows += good_answer(rnd)["assets"]
    return after


# ----- memory


def test_a_row_that_stands_there_as_before_is_the_same_account() -> None:
    """Nothing of it is read again, whatever changes around it."""
    reader = AnswerReader()
    first = reader.read(written(answer(long_row(), short_row(symbol="ETHUSDT"))))
    second = reader.read(written(answer(long_row(), short_row("2.5", symbol="ETHUSDT"), **TOTALS)))
    assert first is not None
    assert second is not None
    assert second.rows["BTCUSDT"] is first.rows["BTCUSDT"]
    assert second.rows["ETHUSDT"] != first.rows["ETHUSDT"]


def test_only_the_newest_answer_is_remembered() -> None:
    """A longer one before leaves nothing behind, and one that is left to the decoder takes nothing away."""
    reader = AnswerReader()
    reader.read(written(answer(*[long_row(symbol=f"A{number}USDT") for number in range(50)])))
    newest = reader.read(written(answer(long_row())))
    assert newest is not None
    assert reader.read("<html>") is None
    assert [known for _, known in reader._rows] == list(newest.rows.values())


def test_a_row_that_came_twice_is_readable_when_it_comes_once() -> None:
    """What is remembered is the row, not that there were two."""
    reader = AnswerReader()
    twice, once = (reader.read(written(answer(*[long_row()] * times))) for times in (2, 1))
    assert twice is not None
    assert once is not None
    assert isinstance(twice.rows["BTCUSDT"], Unreadable)
    assert isinstance(once.rows["BTCUSDT"], PairAccount)


@pytest.mark.parametrize("side", ["baseAsset", "quoteAsset"])
@pytest.mark.parametrize("name", ["free", "locked", "borrowed", "interest", "netAsset", "totalAsset"])
def test_every_amount_of_a_known_asset_counts(side: str, name: str) -> None:
    """A change of any of them is added up again."""
    good = row(base_total=5, base_locked=1, base_debt=2, quote_total=7, quote_locked=2, quote_debt=3)
    bad = deepcopy(good)
    bad[side][name] = f"{Decimal(bad[side][name]) + 1:f}"
    reader = AnswerReader()
    reader.read(written(answer(good)))
    found = reader.read(written(answer(bad)))
    assert found is not None
    assert isinstance(found.rows["BTCUSDT"], Unreadable)


@pytest.mark.parametrize(("last", "kind"), [("0", PairAccount), ("1", Unreadable)])
def test_the_callers_precision_does_not_count(last: str, kind: type) -> None:
    """Forty digits are added up to the last one in a context of five."""
    many = "12345678901234567890.1234567890123456789"
    built = row(base_total=1)
    built["baseAsset"] |= {"free": many, "totalAsset": f"{many}0", "netAsset": f"{many}{last}"}
    with localcontext(Context(prec=5)):
        found = AnswerReader().read(written(answer(built)))
    assert found is not None
    assert isinstance(found.rows["BTCUSDT"], kind)


RULES = (
    Rules(),
    Rules(entry_funding="borrowed"),
    Rules.model_validate({"margin_level": {"block_below": 1.1, "full_above": 3}, "level_tolerance": 0.5}),
)
TIERS = (None, TierRatios(Decimal("1.05"), Decimal("1.05")), TierRatios(Decimal("1.15"), Decimal("1.18")))


@campaign(150, 5_000)
@given(RANDOMS)
def test_a_remembered_verdict_is_the_verdict(rnd: Random) -> None:
    """An account that was judged before, in whatever ways, gives what one gives that was never judged."""
    text = written(good_answer(rnd))
    reader = AnswerReader()
    for _ in range(8):
        known, fresh = reader.read(text), AnswerReader().read(text)
        if known is None or fresh is None:
            return
        symbol = rnd.choice(list(known.rows))
        side, rules, tiers = rnd.choice(list(Side)), rnd.choice(RULES), rnd.choice(TIERS)
        leverage, age = Decimal(rnd.choice(("1", "3"))), rnd.choice((0.0, 61.0))
        remembered, anew = (
            decide("X/Y", side, Reading(found.rows[symbol], age, tier_ratios=tiers), rules, 60.0, leverage)
            for found in (known, fresh)
        )
        assert remembered == anew
        assert str(remembered) == str(anew)


def test_answers_that_are_no_answers_stay_errors_after_good_ones() -> None:
    """A total that is no number spoils the answer, whatever is known of its rows."""
    reader = AnswerReader()
    reader.read(GOOD)
    text = GOOD.replace('"totalAssetOfBtc":"1.5"', '"totalAssetOfBtc":"1e5"')
    assert reader.read(text) is None
    with pytest.raises(AnswerError, match="totalAssetOfBtc"):
        decoded(text)
