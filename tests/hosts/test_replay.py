"""The judge of a backtest: alone, and against a model that knows all reads and looks through them."""

from __future__ import annotations

import logging
import pickle
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import builders

from freqtrade_isolated_margin.account.maths import Side
from freqtrade_isolated_margin.account.records import Absent, PairAccount, Row, Unreadable
from freqtrade_isolated_margin.account.tiers import TierRatios
from freqtrade_isolated_margin.binance.clock import milliseconds, moment
from freqtrade_isolated_margin.history.asking import History
from freqtrade_isolated_margin.history.database import DEFAULT_FILE
from freqtrade_isolated_margin.history.tables import HistoryError
from freqtrade_isolated_margin.history.writing import NewRead
from freqtrade_isolated_margin.hosts.replay import Replay
from freqtrade_isolated_margin.rules.decide import EntryDecision, Outcome, Reading, Rule, decide
from freqtrade_isolated_margin.rules.settings import Settings

START = milliseconds(datetime(2026, 1, 1, tzinfo=UTC))
MINUTE = timedelta(minutes=1)
KEY, OTHER_KEY = "0a1b2c3d", "ffeeddcc"
BTC, ETH, SOL = PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


def account(level: str, pair: str = BTC) -> PairAccount:
    """A long account with this margin level."""
    row = builders.parsed(builders.long_row(level, pair.replace("/", "")))
    assert isinstance(row, PairAccount)
    return row


@dataclass
class Told:
    """A read that was stored: when, by which bot's session, with which key, and what it found."""

    at: int
    session: int
    key: str
    rows: dict[str, Row]
    ratios: dict[str, TierRatios] = field(default_factory=dict)


def store(folder: Path, reads: list[Told]) -> None:
    """Store reads as the bots would, each session with a writer of its own."""
    history = History(f"sqlite:///{folder / DEFAULT_FILE}")
    history.prepare()
    writers = {read.session: history.writer(read.key, "a bot") for read in reads}
    for read in reads:
        writers[read.session].write([NewRead(read.at, lambda: 0.0, read.rows, read.ratios)])
    history.close()


def replay(folder: Path, **section: Any) -> Replay:
    """Return a judge of what was stored, for candles of a minute."""
    return Replay(Settings.load({"backtest": "replay", **section}), {"user_data_dir": folder}, MINUTE)


def ask(judge: Replay, pair: str, at: int, side: Side = Side.LONG) -> EntryDecision:
    """Ask for the verdict at a moment in milliseconds."""
    judge.now = moment(at)
    return judge.decision(pair, side)


# ----- against a model


def expected(reads: list[Told], keys: list[str], pair: str, at: int, judge: Replay) -> EntryDecision | None:
    """What must be said of `pair` at a moment: None where no account of it was known."""
    newest: dict[int, Told] = {}
    for read in reads:
        if read.key in keys and read.at <= at:
            newest[read.session] = max(newest.get(read.session, read), read, key=lambda told: told.at)
    knowing = [read for read in newest.values() if pair in read.rows]
    if not knowing:
        return None
    read = max(knowing, key=lambda told: told.at)
    age = (at - read.at) / 1000
    max_age = float(judge.settings.max_age_seconds)
    if age > max_age:
        return None
    reading = Reading(read.rows[pair], age, read.ratios.get(pair))
    return decide(pair, Side.LONG, reading, judge.settings.rules_for(pair), max_age)


ROWS = st.one_of(
    st.sampled_from(["1.1", "1.2", "1.3", "1.6", "1.9", "2.5"]),
    st.just("absent"),
    st.just("unreadable"),
)


def built(what: str, pair: str) -> Row:
    """Make what the strategy has drawn."""
    if what == "absent":
        return Absent("it has no spot market on Binance")
    return Unreadable("its row is odd") if what == "unreadable" else account(what, pair)


@st.composite
def stories(draw: st.DrawFn) -> list[Told]:
    """Reads of one to three sessions of two keys, some seconds or minutes apart, no two at one moment."""
    keys = draw(st.lists(st.sampled_from([KEY, OTHER_KEY]), min_size=1, max_size=3))
    gaps = draw(
        st.lists(
            st.one_of(st.integers(1, 90_000), st.sampled_from([1, 59_999, 60_000, 60_001, 300_000])),
            min_size=1,
            max_size=14,
        )
    )
    at, reads = START, []
    for gap in gaps:
        at += gap
        session = draw(st.integers(0, len(keys) - 1))
        drawn = draw(st.dictionaries(st.sampled_from(PAIRS), ROWS, max_size=3))
        rows = {pair: built(what, pair) for pair, what in drawn.items()}
        ratio = draw(st.sampled_from([None, TierRatios(Decimal("1.15"), Decimal("1.18"))]))
        owing = [pair for pair, row in rows.items() if isinstance(row, PairAccount) and ratio]
        reads.append(Told(at, session, keys[session], rows, dict.fromkeys(owing, ratio) if ratio else {}))
    return reads


@settings(max_examples=40)
@given(data=st.data(), reads=stories())
def test_the_newest_account_before_the_moment_counts(data: st.DataObject, reads: list[Told]) -> None:
    """At every moment, looked up before or not, in any order, here and in a worker; and nothing later."""
    stored = sorted({read.key for read in reads})
    keys = (
        stored if len(stored) == 1 else data.draw(st.lists(st.sampled_from(stored), min_size=1, unique=True))
    )
    edges = [read.at + shift for read in reads for shift in (-1, 0, 1, 30_000, 60_000, 60_001)]
    grid = [START + number * 60_000 for number in range(12)]
    asked = [(pair, at) for pair in PAIRS for at in {*edges, *grid}]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store(folder, reads)
        judge = replay(
            folder, history={"keys": keys}, max_age_seconds=data.draw(st.sampled_from([20, 60, 3600]))
        )
        if data.draw(st.booleans(), label="looked up before"):
            judge.load(dict.fromkeys(PAIRS[: data.draw(st.integers(1, 3))], grid[:-1]), 60_000)
        if data.draw(st.booleans(), label="in a worker"):
            judge = pickle.loads(pickle.dumps(judge))
        for pair, at in data.draw(st.permutations(asked)):
            found, wanted = ask(judge, pair, at), expected(reads, keys, pair, at, judge)
            if wanted is None:
                assert (found.outcome, found.rule) == (Outcome.BLOCK, Rule.NOT_READ)
                assert "the history has no account for" in found.reasons[0]
            else:
                assert found == wanted


# ----- one by one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a history: level 3, a minute later 1.2, and again a minute later unreadable."""
    found: list[Row] = [account("3"), account("1.2"), Unreadable("its row is odd")]
    rows = enumerate(found)
    store(tmp_path, [Told(START + number * 60_000, 0, KEY, {BTC: row}) for number, row in rows])
    return tmp_path


@pytest.mark.parametrize(
    ("after", "rule"),
    [
        (-1, Rule.NOT_READ),
        (0, Rule.LEVEL),
        (59_999, Rule.LEVEL),
        (60_000, Rule.LEVEL),
        (120_000, Rule.UNREADABLE),
        (180_000, Rule.UNREADABLE),
        (180_001, Rule.NOT_READ),
    ],
)
def test_the_edges_of_a_read(folder: Path, after: int, rule: Rule) -> None:
    """A read counts from its own millisecond on, until the last of `max_age_seconds`."""
    decision = ask(replay(folder), BTC, START + after)
    assert decision.rule is rule
    assert decision.blocks is not (after in {0, 59_999})


def test_a_pair_that_was_never_read_is_refused(folder: Path) -> None:
    """No account of another pair stands in for it."""
    assert ask(replay(folder), ETH, START).rule is Rule.NOT_READ


def test_a_pair_of_futures_is_judged_by_its_spot_pair(folder: Path) -> None:
    """On either side, under its own name."""
    judge = replay(folder)
    judge.load({f"{BTC}:USDT": [START]}, 60_000)
    for side in Side:
        decision = ask(judge, f"{BTC}:USDT", START, side)
        assert (decision.pair, decision.side, decision.outcome) == (f"{BTC}:USDT", side, Outcome.ALLOW)


def test_there_is_no_moment_outside_of_the_callbacks(folder: Path) -> None:
    """Before the first of them, and from the end of a backtest to the next, nothing is known."""
    judge = replay(folder)
    assert judge.decision(BTC, Side.LONG).blocks
    assert judge.account(BTC) is None
    assert ask(judge, BTC, START).outcome is Outcome.ALLOW
    judge.begin()
    refused = judge.decision(BTC, Side.LONG)
    assert "no moment of the backtest is given outside of its callbacks" in refused.reasons[0]
    assert judge.account(BTC) is None
    assert judge.claim(refused) is False


def test_impossible_limits_refuse(folder: Path) -> None:
    """While a strategy's settings are impossible, there is no verdict but a refusal that says so."""
    judge = replay(folder)
    judge.load({BTC: [START]}, 60_000)
    judge.trouble = "margin_level.block_below is too high"
    assert ask(judge, BTC, START).blocks
    assert "block_below is too high" in ask(judge, BTC, START).reasons[0]
    (values,) = judge.values(BTC, [START])
    assert values[-1] == 0


def test_other_limits_need_no_other_lookup(folder: Path) -> None:
    """What was looked up is judged anew by the settings of each epoch, `max_age_seconds` among them."""
    judge = replay(folder)
    judge.load({BTC: [START, START + 60_000]}, 60_000)
    late = START + 60_000
    assert ask(judge, BTC, late).blocks
    judge.settings = Settings.load({"margin_level": {"block_below": 1.1, "full_above": 1.15}})
    assert ask(judge, BTC, late).outcome is Outcome.SHRINK
    judge.settings = Settings.load({"max_age_seconds": 240})
    assert ask(judge, BTC, START + 300_000).rule is Rule.UNREADABLE


def test_the_last_verdict_is_that_of_its_question_only(tmp_path: Path) -> None:
    """Another side, leverage, moment, pair, or limits: each is judged anew, and the first again alike."""
    reads = [
        Told(START + number * 60_000, 0, KEY, {BTC: account(level)})
        for number, level in ((0, "3"), (1, "2.5"))
    ]
    store(tmp_path, reads)
    judge = replay(tmp_path, entry_funding="borrowed")
    judge.now = moment(START)
    first = judge.decision(BTC, Side.LONG)
    assert judge.decision(BTC, Side.LONG, Decimal("1.0")) is first
    assert judge.decision(BTC, Side.LONG, Decimal(3)).max_stake != first.max_stake
    assert judge.decision(BTC, Side.SHORT, Decimal(3)).side is Side.SHORT
    assert ask(judge, BTC, START + 60_000).margin_level == Decimal("2.5")
    assert ask(judge, ETH, START + 60_000).rule is Rule.NOT_READ
    assert ask(judge, BTC, START) == first
    judge.trouble = "impossible limits"
    assert judge.decision(BTC, Side.LONG).blocks
    judge.trouble = None
    judge.settings = Settings.load({"margin_level": {"block_below": 3.5, "full_above": 4}})
    assert judge.decision(BTC, Side.LONG).blocks


def test_what_was_looked_up_does_not_change(folder: Path) -> None:
    """What is recorded, or deleted, meanwhile changes no verdict of this run or of its workers."""
    judge = replay(folder)
    judge.load({BTC: [START]}, 60_000)
    before = ask(judge, BTC, START + 60_000)
    store(folder, [Told(START + 50_000, 0, KEY, {BTC: account("2.5")})])
    assert ask(judge, BTC, START + 60_000) == before
    sent = pickle.dumps(judge)
    (folder / DEFAULT_FILE).unlink()
    worker = pickle.loads(sent)
    worker.load({BTC: [START]}, 60_000)
    assert ask(worker, BTC, START + 60_000) == before


def test_a_database_that_is_gone_refuses(folder: Path) -> None:
    """A moment that was not looked up before is refused, and the account is None."""
    judge = replay(folder)
    (folder / DEFAULT_FILE).unlink()
    assert "the history database cannot be read" in ask(judge, BTC, START).reasons[0]
    assert judge.account(BTC) is None
    with pytest.raises(HistoryError):
        judge.load({BTC: [START]}, 60_000)


@pytest.mark.parametrize(
    ("keys", "said"), [([], "holds the accounts of 2 API keys"), ([KEY], None), ([KEY, OTHER_KEY], None)]
)
def test_after_a_change_of_the_key(tmp_path: Path, keys: list[str], said: str | None) -> None:
    """Accounts of two keys are mixed only where the settings say that both are meant."""
    reads = [
        Told(START, 0, KEY, {BTC: account("3")}),
        Told(START + 30_000, 1, OTHER_KEY, {BTC: account("1.2")}),
    ]
    store(tmp_path, reads)
    if said:
        with pytest.raises(HistoryError, match=said):
            replay(tmp_path)
        return
    decision = ask(replay(tmp_path, history={"keys": keys}), BTC, START + 30_000)
    assert decision.blocks is (len(keys) == 2)


def test_the_share_of_candles_that_are_covered(folder: Path) -> None:
    """Of five opens from before the first read to after the last is too old, four are known."""
    judge = replay(folder)
    opens = [START + number * 60_000 for number in range(-1, 5)]
    judge.load({BTC: opens}, 60_000)
    assert judge.covered(BTC, opens) == 4 / 6
    assert judge.covered(ETH, opens) == 0
    assert judge.covered(BTC, []) == 0


def test_the_columns_are_as_of_the_close(folder: Path) -> None:
    """Level and factor of what was known then; nothing where nothing was."""
    judge = replay(folder)
    judge.load({BTC: [START - 60_000, START]}, 60_000)
    before, first, second = judge.values(BTC, [START - 60_000, START, START + 60_000])
    assert before[0] != before[0]
    assert (first[0], first[-1]) == (3, 1)
    assert (second[0], second[-1]) == (1.2, 0)


def test_one_recorded_account_is_good_for_one_borrowed_entry(tmp_path: Path) -> None:
    """The next entry waits for a read that knows of it, as live; the next backtest begins anew."""
    reads = [Told(START + number * 30_000, 0, KEY, {BTC: account("3")}) for number in range(3)]
    store(tmp_path, reads)
    judge = replay(tmp_path, entry_funding="borrowed")

    def claims(at: int) -> bool:
        return judge.claim(ask(judge, BTC, START + at))

    assert [claims(at) for at in (10_000, 20_000, 30_000, 40_000)] == [True, False, True, False]
    judge.begin()
    assert claims(10_000)


def test_what_became_of_the_entries_is_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each pair at the end of a backtest: at the begin of the next, and when the judge goes."""
    caplog.set_level(logging.INFO)
    judge = replay(folder)
    decision = ask(judge, BTC, START + 60_000)
    judge.count(decision, refused=True)
    judge.begin()
    assert caplog.messages == []
    judge.tell("Mine")
    for _ in range(2):
        judge.count(decision, refused=True)
    judge.count(decision, refused=False)
    judge.begin()
    assert caplog.messages == ["Mine, BTC/USDT: 2 entries refused (margin_level 2), 1 stakes cut."]
    judge.count(decision, refused=False)
    del judge
    assert caplog.messages[1:] == ["Mine, BTC/USDT: 0 entries refused, 1 stakes cut."]
