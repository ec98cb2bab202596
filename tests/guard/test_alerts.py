"""Alerts: what is told of a pair's account, when, how often and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import account, dust_row, long_row, parsed, placeholder, row

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import PairAccount, Unreadable
from freqtrade_isolated_margin.guard.alerts import (
    LONGEST,
    LONGEST_IN_DISCORD,
    Alerts,
    as_messages,
    longest_message,
)
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, Rule, decide
from freqtrade_isolated_margin.rules.settings import Settings

D = Decimal
MAX_AGE = 60.0
Seen = tuple[EntryDecision, PairAccount | None]


class Watched:
    """Alerts, and a clock that goes on by ten seconds with every look."""

    def __init__(self, **section: Any) -> None:
        self.settings = Settings.load(section)
        self.alerts = Alerts(self.settings)
        self.now = 1000.0

    def look(self, *seen: Seen, trouble: str | None = None) -> list[str]:
        """Let the bot's loop look at these pairs."""
        self.now += 10
        return self.alerts.look(seen, self.now, trouble)

    def at(self, level: Any, **more: Any) -> list[str]:
        """Look at BTC/USDT, alone, at this margin level."""
        return self.look(self.pair(long_row(level, **more)))

    def pair(self, built: Any, pair: str = "BTC/USDT", age: float = 1.0, trouble: str | None = None) -> Seen:
        """Judge a pair as the guard would."""
        record = parsed(built) if isinstance(built, dict) else built
        reading = Reading(record, age, trouble=trouble)
        decision = decide(pair, Side.LONG, reading, self.settings.rules_for(pair), MAX_AGE)
        usable = isinstance(record, PairAccount) and not record.is_absent and age <= MAX_AGE
        return decision, record if usable else None


# Limits of the distance that let everything through, so that a test sees the level alone.
LEVEL_ALONE = {"liquidation_distance": {"block_below": 0, "full_above": 0}}


@pytest.fixture
def watched() -> Watched:
    """Judge by the margin level alone."""
    return Watched(**LEVEL_ALONE)


# ----- what a line says


def test_a_block_is_told_with_its_figures() -> None:
    """The line has the pair, what changed, what it means, why, and every figure."""
    watched = Watched()
    assert watched.at(3, status="NORMAL") == []
    (line,) = watched.at("1.2", status="MARGIN_CALL")
    assert line == (
        "BTC/USDT: block, was allow; status `MARGIN_CALL`, was NORMAL; distance to liquidation 12.5 %, "
        "was 65 %. No entries: its status is `MARGIN_CALL` (`block_statuses`); margin level 1.2 ≤ 1.25 "
        "(`block_below`). Margin level 1.2, index price 50000, liquidation price 43750, distance 12.5 %, "
        "status `MARGIN_CALL`."
    )


def test_a_shrink_says_how_much_is_left(watched: Watched) -> None:
    """What a shrunk entry comes to stands in the line, in percent of the stake."""
    watched.at(3)
    (line,) = watched.at("1.625")
    assert line.startswith(
        "BTC/USDT: shrink, was allow. Entries with 50 % of their stake: margin level 1.625 between 1.25 "
        "(`block_below`) and 2 (`full_above`). Margin level 1.625, index price 50000, "
    )


def test_dust_that_is_left_of_a_debt_is_back_to_normal() -> None:
    """It has a level, and neither a liquidation price nor a distance."""
    watched = Watched()
    watched.at("1.2")
    lines = [line for _ in range(40) for line in watched.look(watched.pair(dust_row("50001")))]
    (line,) = lines
    assert line.startswith("BTC/USDT: back to normal; allow, was block.")
    assert line.endswith("Margin level 999, index price 50000, status EXCESSIVE.")


def test_a_pair_without_account_has_no_figures() -> None:
    """Where there is nothing to show nothing is made up."""
    watched = Watched(without_account="block")
    assert watched.look(watched.pair(placeholder())) == [
        "BTC/USDT: block. No entries: no isolated margin account (`without_account`: block)."
    ]


# ----- when there is a line


@pytest.mark.parametrize(
    ("level", "said"), [(3, []), ("1.5", ["BTC/USDT: shrink."]), ("1.2", ["BTC/USDT: block."])]
)
def test_first_sight(watched: Watched, level: Any, said: list[str]) -> None:
    """After the start nothing is said of a pair that is allowed, and one line of another."""
    assert [line[: len("BTC/USDT: block.") + (level == "1.5")] for line in watched.at(level)] == said
    assert watched.at(level) == []


def test_worse_is_told_at_once(watched: Watched) -> None:
    """Each step for the worse has its line in the very look that finds it."""
    watched.at(3)
    assert "shrink, was allow" in watched.at("1.99")[0]
    assert "block, was shrink" in watched.at("1.25")[0]
    assert watched.at("1.25") == []


def test_better_is_told_at_once_when_well_clear(watched: Watched) -> None:
    """A level that is 1.2 times as far from 1 as its limit is believed at once."""
    watched.at("1.2")
    assert watched.at("1.299") == []
    assert "shrink, was block" in watched.at("1.3")[0]
    assert watched.at("2.19") == []
    (line,) = watched.at("2.2")
    assert line.startswith("BTC/USDT: back to normal; allow, was shrink. Entries are allowed")
    assert watched.at("2.2") == watched.at("2.5") == []


def test_better_is_told_when_it_has_held(watched: Watched) -> None:
    """Close to its limit a better verdict is told after settle_seconds without interruption."""
    watched.at("1.9")
    assert [watched.at("2.01") for _ in range(20)] == [[]] * 20
    assert watched.at("1.99") == []
    assert [watched.at("2.01") for _ in range(30)] == [[]] * 30
    assert watched.at("2.01")[0].startswith("BTC/USDT: back to normal; allow, was shrink.")


def test_every_figure_must_be_clear() -> None:
    """A level far above its limit does not make a distance just above its own good news."""
    watched = Watched(margin_level={"block_below": 1.01, "full_above": 1.01})
    # Liquidated at a ratio of 1.05: the distance is 1 - 1.05 / level.
    watched.at(Fraction("1.05") / Fraction("0.81"))
    assert watched.at(Fraction("1.05") / Fraction("0.77")) == []
    assert "allow, was shrink" in watched.at(Fraction("1.05") / Fraction("0.75"))[0]


def test_calm_above_and_settle_seconds_are_settings() -> None:
    """The margin and the time that better news takes can be set."""
    watched = Watched(**LEVEL_ALONE, alerts={"calm_above": 2, "settle_seconds": 20})
    watched.at("1.9")
    assert watched.at("2.9") == watched.at("1.9") == []
    assert watched.at("3.0")
    watched.at("1.9")
    assert watched.at("2.01") == watched.at("2.01") == []
    assert watched.at("2.01")


def test_repaid_is_clear_at_once(watched: Watched) -> None:
    """Without debt there is no figure that could come back to its limit."""
    watched.at("1.2", status="MARGIN_CALL")
    (line,) = watched.look(watched.pair(row(base_total=1)))
    assert line == (
        "BTC/USDT: back to normal; allow, was block; status EXCESSIVE, was `MARGIN_CALL`. "
        "Entries are allowed: no debt."
    )


def test_a_closed_account_is_clear_at_once(watched: Watched) -> None:
    """An account that is gone has no status any more."""
    watched.at("1.2", status="MARGIN_CALL")
    (line,) = watched.look(watched.pair(placeholder()))
    assert line.startswith(
        "BTC/USDT: back to normal; allow, was block; status none, was `MARGIN_CALL`. Entries are allowed: no"
    )


def test_the_last_cause_decides_what_is_clear(watched: Watched) -> None:
    """A block that began with a figure and went on without one is over when it has held."""
    watched.at("1.2")
    assert watched.look(watched.pair(Unreadable("its row came twice"))) == []
    assert [watched.at(3) for _ in range(30)] == [[]] * 30
    assert watched.at(3)


def test_the_callers_decimal_context_does_not_matter(watched: Watched) -> None:
    """A strategy may have set a short precision in the thread of the loop."""
    watched.at("1.9")
    with localcontext(prec=2):
        assert watched.at("2.19") == []


def test_a_change_of_status_alone_is_told(watched: Watched) -> None:
    """A status that changes without the verdict has its line."""
    watched.at(3)
    assert watched.at(3, status="NORMAL")[0].startswith(
        "BTC/USDT: status NORMAL, was EXCESSIVE. Entries are allowed: margin level 3"
    )
    assert watched.at(3, status="NORMAL") == []


def test_a_status_comes_back_to_normal_once() -> None:
    """A bad status that blocks nothing is told, and that it is good again."""
    watched = Watched(**LEVEL_ALONE, block_statuses=[], margin_level={"full_above": 1.25})
    watched.at("1.9", status="NORMAL")
    assert "status `MARGIN_CALL`, was NORMAL" in watched.at("1.9", status="MARGIN_CALL")[0]
    assert watched.at("1.91", status="NORMAL") == []
    (line,) = watched.at("2.2", status="NORMAL")
    assert line.startswith("BTC/USDT: back to normal; status NORMAL, was `MARGIN_CALL`. Entries are allowed")


def test_an_unknown_status_is_the_worst(watched: Watched) -> None:
    """A status that Binance does not document is told at once, however long it is and whatever is in it."""
    watched.at(3, status="FORCE_LIQUIDATION")
    (line,) = watched.at(3, status="*[`NEW\n" + "X" * 5000)
    assert ", was `FORCE_LIQUIDATION`. No entries: " in line
    assert len(line) <= LONGEST_IN_DISCORD
    assert visible(line)


def test_a_status_flickers_at_no_known_limit(watched: Watched) -> None:
    """The level at which a status was seen is its limit: around it there is one line."""
    watched.at("1.305", status="NORMAL")
    told = [
        watched.at(level, status="MARGIN_CALL" if level < "1.3" else "NORMAL")
        for level in ["1.299", "1.301", "1.298", "1.302"] * 20
    ]
    assert len([lines for lines in told if lines]) == 1


def test_the_highest_level_of_a_status_is_its_limit(watched: Watched) -> None:
    """A fall and a rise back to where the status changed are no good news."""
    watched.at("1.305", status="NORMAL")
    assert watched.at("1.299", status="MARGIN_CALL")
    assert watched.at("1.2", status="MARGIN_CALL") == []
    assert watched.at("1.301", status="NORMAL") == []


# ----- the remaining room


def test_the_room_is_told_when_it_has_halved() -> None:
    """At half of the distance of the last message there is another, and at half of that again."""
    watched = Watched(margin_level={"block_below": 1.01, "full_above": 1.01})
    rooms = ["0.8", "0.41", "0.40", "0.21", "0.19", "0.11", "0.095"]
    told = [watched.at(Fraction("1.05") / (1 - Fraction(room))) for room in rooms]
    assert [bool(lines) for lines in told] == [False, False, True, False, True, False, True]
    assert told[2][0].startswith("BTC/USDT: distance to liquidation 40 %, was 80 %. Entries are allowed: ")
    # The verdict's own line counts as a message.
    assert told[4][0].startswith("BTC/USDT: shrink, was allow; distance to liquidation 19 %, was 40 %.")


def test_the_room_is_armed_again_silently() -> None:
    """A distance that has grown well beyond the one told is what the next fall is counted from."""
    watched = Watched(alerts={"room_left": 0.75})
    rooms = ["0.8", "0.6", "0.7", "0.8", "0.6"]
    told = [watched.at(Fraction("1.05") / (1 - Fraction(room))) for room in rooms]
    assert [bool(lines) for lines in told] == [False, True, False, False, True]
    # Not beyond, so only when it has held.
    assert watched.at(Fraction("1.05") / (1 - Fraction("0.68"))) == []
    assert watched.at(Fraction("1.05") / (1 - Fraction("0.5"))) == []
    assert [watched.at(Fraction("1.05") / (1 - Fraction("0.68"))) for _ in range(31)] == [[]] * 31
    assert watched.at(Fraction("1.05") / (1 - Fraction("0.5")))


def test_nothing_left_is_told_once(watched: Watched) -> None:
    """At a distance of 0 half of it is 0 as well: that is no news."""
    watched.at("1.04")
    assert watched.at("1.04") == watched.at("1.03") == []


# ----- accounts that cannot be read


def test_one_line_for_all_when_nothing_can_be_read(watched: Watched) -> None:
    """An outage is one line with its reason, and one when it is over; what is as before says nothing."""
    fresh = [watched.pair(long_row(3), f"A{n}/USDT") for n in range(5)] + [watched.pair(long_row("1.2"))]
    stale = [watched.pair(long_row(3), decision.pair, age=61, trouble="x") for decision, _ in fresh]
    watched.look(*fresh)
    (line,) = watched.look(*stale, trouble="Binance cannot be reached; since 12:00:00 UTC")
    assert line == (
        "Isolated margin accounts have not been readable for more than 60 s: Binance cannot be reached; "
        "since 12:00:00 UTC. No entries into any pair until they are."
    )
    assert [watched.look(*stale) for _ in range(30)] == [[]] * 30
    assert watched.look(*fresh) == ["Isolated margin accounts are readable again, after 6 min."]
    assert watched.look(*fresh) == []


def test_news_of_an_outage_come_after_it(watched: Watched) -> None:
    """What has changed meanwhile is told when the accounts can be read again."""
    watched.at(3)
    watched.look(watched.pair(long_row(3), age=61))
    lines = watched.at("1.2")
    assert [line.partition(".")[0].split(";")[0] for line in lines] == [
        "Isolated margin accounts are readable again, after 70 s",
        "BTC/USDT: block, was allow",
    ]


def test_accounts_that_were_never_read(watched: Watched) -> None:
    """An outage from the start on is told as any other."""
    assert len(watched.look(watched.pair(None), watched.pair(None, "B/USDT"))) == 1
    assert watched.look(watched.pair(long_row(3)), watched.pair(long_row(3), "B/USDT")) == [
        "Isolated margin accounts are readable again, after 70 s."
    ]


def test_outages_that_come_and_go(watched: Watched) -> None:
    """Where one outage follows another, the end is told when it has held."""
    fresh, stale = watched.pair(long_row(3)), watched.pair(long_row(3), age=61)
    said = [line for _ in range(50) for seen in (fresh, stale) for line in watched.look(seen)]
    assert [line.split()[3:5] for line in said] == [
        ["have", "not"],
        ["are", "readable"],
        ["have", "not"],
    ]
    assert [watched.look(fresh) for _ in range(30)] == [[]] * 30
    assert len(watched.look(fresh)) == 1


def test_too_old_in_the_middle_of_a_look(watched: Watched) -> None:
    """Pairs that turn too old while others are judged wait for the next look."""
    fresh, other = watched.pair(long_row(3)), watched.pair(long_row(3), "B/USDT")
    watched.look(fresh, other)
    stale = watched.pair(long_row(3), "B/USDT", age=61)
    assert watched.look(fresh, stale) == []
    assert len(watched.look(watched.pair(long_row(3), age=61), stale)) == 1


def test_one_pair_that_is_too_old_is_told_when_the_others_are_not(watched: Watched) -> None:
    """Of two readers with different pairs one may stop: told once, and once that all is well again."""
    fresh, other = watched.pair(long_row(3)), watched.pair(long_row(3), "B/USDT")
    watched.look(fresh, other)
    stale = watched.pair(long_row(3), "B/USDT", age=100)
    lines = [line for _ in range(20) for line in watched.look(fresh, stale)]
    assert [line.partition(" s old")[0] for line in lines] == [
        "B/USDT: block, was allow. No entries: the account is 100"
    ]
    lines = [line for _ in range(100) for line in watched.look(fresh, other)]
    assert [line.partition(".")[0] for line in lines] == ["B/USDT: back to normal; allow, was block"]


def test_one_unreadable_pair_is_that_pairs_news(watched: Watched) -> None:
    """One pair's bad row has a line of its own, and its recovery when it has held."""
    other = watched.pair(long_row(3), "B/USDT")
    watched.look(other, watched.pair(long_row(3)))
    assert watched.look(other, watched.pair(Unreadable("its row came twice"))) == [
        "BTC/USDT: block, was allow. No entries: the account is unreadable: its row came twice."
    ]
    # A bad row now and then, and otherwise a good one, is not told again and again.
    for _ in range(10):
        assert watched.look(other, watched.pair(long_row(3))) == []
        assert watched.look(other, watched.pair(Unreadable("its row came twice"))) == []
    assert [watched.look(other, watched.pair(long_row(3))) for _ in range(30)] == [[]] * 30
    assert watched.look(other, watched.pair(long_row(3)))[0].startswith("BTC/USDT: back to normal; allow")


def test_a_contradictory_account_does_not_count_its_room(watched: Watched) -> None:
    """Figures that cannot be believed are no fall of the room, and no growth."""
    watched.at(3)
    (line,) = watched.at(3, indexPrice="0")
    assert line.startswith("BTC/USDT: block, was allow. No entries: the account contradicts itself")
    assert [watched.at(3) for _ in range(30)] == [[]] * 30
    (line,) = watched.at(3)
    assert line.startswith("BTC/USDT: back to normal; allow, was block.")


def test_an_unreadable_pair_keeps_what_was_told(watched: Watched) -> None:
    """While nothing is known of an account neither its status nor its room counts as changed."""
    watched.at(3, status="NORMAL")
    bad = watched.pair(Unreadable("its row came twice"))
    assert [bool(watched.look(bad)) for _ in range(40)] == [True] + [False] * 39
    (line,) = watched.at("1.5", status="NORMAL")
    assert line.startswith("BTC/USDT: shrink, was block; distance to liquidation 30 %, was 65 %. ")


@pytest.mark.parametrize(("level", "status"), [("2.01", "NORMAL"), ("1.91", "EXCESSIVE")])
def test_an_outage_interrupts_good_news(watched: Watched, level: str, status: str) -> None:
    """What was better before and after an outage has not held through it."""
    watched.at("1.9", status="NORMAL")
    assert [watched.at(level, status=status) for _ in range(20)] == [[]] * 20
    assert len(watched.look(watched.pair(long_row(3), age=61))) == 1
    assert len(watched.at(level, status=status)) == 1
    assert [watched.at(level, status=status) for _ in range(29)] == [[]] * 29
    assert watched.at(level, status=status)


# ----- the list of pairs


def test_a_pair_that_leaves_is_forgotten_later(watched: Watched) -> None:
    """A pair that comes back soon is compared with what was told; one that stays away is as new."""
    other = watched.pair(long_row(3), "B/USDT")
    watched.look(other, watched.pair(long_row("1.2")))
    watched.look(other)
    assert watched.look(other, watched.pair(long_row("1.2"))) == []
    watched.now += 3700
    watched.look(other)
    assert len(watched.look(other, watched.pair(long_row("1.2")))) == 1


def test_the_memory_is_bounded(watched: Watched) -> None:
    """Pairs that come and go do not pile up."""
    for number in range(2000):
        watched.look(watched.pair(long_row(3), f"P{number}/USDT"))
    assert len(watched.alerts._pairs) <= 361


def test_alerts_can_be_switched_off() -> None:
    """Without alerts nothing is said at all."""
    watched = Watched(alerts=False)
    assert watched.at("1.2") == watched.look(watched.pair(None)) == []


# ----- messages


def test_lines_are_joined_into_few_messages() -> None:
    """A hundred pairs at once take as few messages as fit, in order, none too long."""
    watched = Watched()
    seen = [watched.pair(long_row("1.2", status="MARGIN_CALL"), f"PAIR{n}/USDT") for n in range(100)]
    lines = watched.look(*seen)
    assert len(lines) == 100
    for longest in (LONGEST, LONGEST_IN_DISCORD):
        messages = as_messages(lines, longest)
        assert "\n".join(messages).split("\n") == lines
        assert all(len(message) <= longest for message in messages)
        assert all(len(one) + 1 + len(other.split("\n")[0]) > longest for one, other in pairwise(messages))
    assert as_messages([]) == []


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({}, LONGEST),
        ({"discord": {"enabled": False, "strategy_msg": [{"a": "{msg}"}]}}, LONGEST),
        ({"discord": {"enabled": True}}, LONGEST),
        ({"discord": {"enabled": True, "strategy_msg": [{"a": "{msg}"}]}}, LONGEST_IN_DISCORD),
    ],
)
def test_messages_are_short_enough_for_discord(config: dict[str, Any], longest: int) -> None:
    """Discord's fields are shorter than Telegram's messages."""
    assert longest_message(config) == longest


def visible(message: str) -> str:
    """Return what Telegram shows of a message in its older Markdown; fail where it would refuse it.

    An entity begins with one of ``_*`[`` that no backslash escapes, and must end; within nothing is escaped.
    """
    shown, place = [], 0
    while place < len(message):
        letter = message[place]
        assert letter != "\\", "would be taken for an escape"
        if letter in "_*[":
            raise AssertionError(f"markup at {place}: {message}")
        if letter == "`":
            assert not message.startswith("``", place), "would begin a block of code, or an empty entity"
            end = message.index("`", place + 1)
            shown.append(message[place + 1 : end])
            place = end + 1
        else:
            shown.append(letter)
            place += 1
    return "".join(shown)


awkward = st.text(st.sampled_from("ab _*[]()`\\\n\t~|>{}%é\u2028\x00.:"), max_size=900)


@given(awkward, awkward)
def test_no_text_can_break_a_message(reason: str, trouble: str) -> None:
    """Whatever an exchange or an error says comes through as text, on one line, and is not too long."""
    decision = EntryDecision.because("A_B/USDT", Side.LONG, D(0), Rule.UNREADABLE, reason)
    unread = EntryDecision.because("A_B/USDT", Side.LONG, D(0), Rule.MAX_AGE, reason)
    alerts = Alerts(Settings())
    lines = alerts.look([(decision, None)], 0.0) + alerts.look([(unread, None)], 1.0, trouble)
    assert len(lines) == 2
    for line in lines:
        assert len(line) <= LONGEST_IN_DISCORD
        assert line.isprintable()
        assert visible(line).startswith(("A_B/USDT: block. No entries", "Isolated margin accounts have not"))


# ----- properties

figures = st.none() | st.sampled_from(["0", "-1", "1", "NaN", "Infinity", "-Infinity", "1e30", "1e-30"]).map(
    D
)
accounts = st.none() | st.sampled_from(
    [
        account(base_total=1),
        account(base_total=1, quote_debt=1000),
        account(base_total=1, quote_debt=1000, index=0),
        account(base_total=1, quote_debt=1000, status="X_Y"),
        account(base_total=0, quote_debt=1, liquidatePrice="0"),
    ]
)


@st.composite
def decisions(draw: st.DrawFn) -> Seen:
    """Any verdict on any figures, whether or not they belong together."""
    decision = EntryDecision.because(
        pair=draw(st.sampled_from(["A/USDT", "B/USDT"])),
        side=Side.LONG,
        factor=draw(st.sampled_from([D(0), D("0.5"), D(1)])),
        rule=draw(st.sampled_from(Rule)),
        why=draw(st.text(max_size=10)),
    )
    decision = decision._replace(
        outcome=draw(st.sampled_from(Outcome)),
        margin_level=draw(figures),
        liquidation_distance=draw(figures),
    )
    return decision, draw(accounts)


@given(st.lists(st.lists(decisions(), max_size=3), max_size=8), st.floats(0, 2000))
def test_nothing_makes_it_raise(looks: list[list[Seen]], step: float) -> None:
    """Whatever comes in, lines come out; in a thread with a decimal context of its own as well."""
    alerts = Alerts(Settings())
    with localcontext(prec=2):
        for number, seen in enumerate(looks):
            assert all(visible(line) for line in alerts.look(seen, number * step))


RANKS = {"allow": 0, "shrink": 1, "block": 2}


def verdicts(lines: Iterable[str]) -> list[str]:
    """Return the verdicts that lines tell, and none where one tells of something else."""
    return [found[1] for line in lines if (found := re.search(r"(allow|shrink|block)(, was|\. )", line))]


levels = st.lists(st.integers(1030, 4000).map(lambda level: Fraction(level, 1000)), max_size=60)


@given(levels)
def test_worse_is_never_withheld_and_nothing_is_told_twice(path: list[Fraction]) -> None:
    """On any path a worse verdict is told in its look, and no verdict is told that was told before."""
    watched = Watched(**LEVEL_ALONE)
    told = "allow"
    for level in path:
        seen = watched.pair(long_row(level))
        news = verdicts(watched.look(seen))
        assert told not in news
        told = news[0] if news else told
        assert RANKS[told] >= RANKS[seen[0].outcome]


@given(
    st.sampled_from(["1.25", "2"]),
    st.lists(st.integers(-100, 100), min_size=1, max_size=60),
    st.sampled_from(["0.5", "0.99"]),
)
def test_no_flicker_around_a_limit(limit: str, path: list[int], left: str) -> None:
    """A level that stays within 1 % of a limit has at most one line in each direction."""
    watched = Watched(alerts={"room_left": D(left)}, **LEVEL_ALONE)
    around = [Fraction(limit) * (1 + Fraction(step, 10_000)) for step in path]
    news = [verdict for level in around for verdict in verdicts(watched.at(level))]
    assert len(news) == len(set(news)) <= 2


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=60))
def test_no_flicker_around_half_of_the_room(path: list[int]) -> None:
    """A distance that stays within 1 % of half of the one told has one line at most."""
    watched = Watched(margin_level={"block_below": 1.01, "full_above": 1.01})
    rooms = [Fraction("0.8"), *(Fraction("0.4") * (1 + Fraction(step, 10_000)) for step in path)]
    lines = [line for room in rooms for line in watched.at(Fraction("1.05") / (1 - room))]
    assert len(lines) <= 1


@given(
    st.lists(st.tuples(st.sampled_from(["1.1", "1.3", "1.9", "2.1", "4", "too old"]), st.integers(1, 80))),
    st.sampled_from(["NORMAL", "MARGIN_CALL"]),
)
def test_what_is_not_looked_at_again_has_no_news(path: list[tuple[str, int]], status: str) -> None:
    """The same verdict on the same account tells, look after look, what equal ones tell."""
    kept, anew = Watched(**LEVEL_ALONE), Watched(**LEVEL_ALONE)
    for level, looks in path:
        row = long_row("3" if level == "too old" else level, status=status)
        age = 100.0 if level == "too old" else 1.0
        seen = kept.pair(row, age=age)
        for _ in range(looks):
            assert kept.look(seen) == anew.look(anew.pair(row, age=age))
