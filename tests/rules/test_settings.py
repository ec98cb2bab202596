"""The configuration section: its defaults, its merging, and that nothing in it may be misspelt."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from pydantic import ValidationError

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.rules.settings import Settings, spot_pair

D = Decimal


def test_the_defaults_are_the_documented_ones() -> None:
    """No section at all is this one."""
    assert Settings.load().model_dump(mode="json") == {
        "enabled": True,
        "margin_level": {"block_below": "1.25", "full_above": "2.0"},
        "liquidation_distance": {"block_below": "0.05", "full_above": "0.20"},
        "block_statuses": ["MARGIN_CALL", "PRE_LIQUIDATION", "FORCE_LIQUIDATION"],
        "entry_funding": "spot",
        "without_account": "allow",
        "level_tolerance": "0.02",
        "refresh_seconds": "10",
        "max_age_seconds": "60",
        "recv_window": 10000,
        "weight_budget": 1200,
        "source": "exchange",
        "history": {"enabled": True, "db_url": None, "retention_days": "30", "keys": []},
        "alerts": {"enabled": True, "room_left": "0.5", "calm_above": "1.2", "settle_seconds": "300"},
        "charts": True,
        "backtest": "off",
        "pairs": {},
        "trading": {
            "enabled": False,
            "collateral": "transfer",
            "interest_rate": "0.0005",
            "interest_rates": {},
            "max_leverage": 3,
            "max_leverages": {},
        },
        "reduce": None,
    }


def test_the_documented_section_is_the_defaults() -> None:
    """Writing out every default changes nothing, floats included."""
    section = {
        "enabled": True,
        "margin_level": {"block_below": 1.25, "full_above": 2.0},
        "liquidation_distance": {"block_below": 0.05, "full_above": 0.20},
        "block_statuses": ["MARGIN_CALL", "PRE_LIQUIDATION", "FORCE_LIQUIDATION"],
        "entry_funding": "spot",
        "without_account": "allow",
        "refresh_seconds": 10,
        "max_age_seconds": 60,
        "recv_window": 10000,
        "pairs": {},
    }
    assert Settings.load(section) == Settings.load()


def test_a_float_means_the_number_that_was_written() -> None:
    """1.1 is not 1.100000000000000088."""
    assert Settings.load({"margin_level": {"block_below": 1.1}}).margin_level.block_below == D("1.1")


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_section_or_attribute_is_none(nothing: object) -> None:
    """Both come out as the defaults."""
    assert Settings.load(nothing, nothing) == Settings.load()


# ----- merging


def test_the_configuration_wins_over_the_attribute_and_that_over_the_defaults() -> None:
    """Setting by setting, inside of nested ones too."""
    merged = Settings.load(
        {"margin_level": {"block_below": 1.3}, "refresh_seconds": 5},
        {"margin_level": {"block_below": 1.5, "full_above": 3}, "refresh_seconds": 7, "max_age_seconds": 90},
    )
    assert (merged.margin_level.block_below, merged.margin_level.full_above) == (D("1.3"), D(3))
    assert (merged.refresh_seconds, merged.max_age_seconds) == (5, 90)
    assert merged.liquidation_distance == Settings().liquidation_distance


def test_a_list_is_replaced_and_not_joined() -> None:
    """The configuration's statuses are all there are."""
    merged = Settings.load({"block_statuses": ["NORMAL"]}, {"block_statuses": ["MARGIN_CALL"]})
    assert merged.block_statuses == ("NORMAL",)


def test_pairs_are_merged_deeply() -> None:
    """One pair's limits may come from both."""
    merged = Settings.load(
        {"pairs": {"BTC/USDT": {"margin_level": {"block_below": 1.4}}}},
        {
            "pairs": {
                "BTC/USDT": {"margin_level": {"full_above": 3}},
                "ETH/USDT": {"without_account": "block"},
            }
        },
    )
    level = merged.rules_for("BTC/USDT").margin_level
    assert (level.block_below, level.full_above) == (D("1.4"), D(3))
    assert merged.rules_for("ETH/USDT").without_account == "block"


def test_a_pair_changes_the_rules_of_all_pairs_and_only_for_itself() -> None:
    """What it does not name is as for the others."""
    settings = Settings.load(
        {
            "margin_level": {"block_below": 1.3},
            "block_statuses": ["NORMAL"],
            "pairs": {"BTC/USDT": {"margin_level": {"full_above": 5}, "entry_funding": "borrowed"}},
        }
    )
    changed, common = settings.rules_for("BTC/USDT"), settings.rules_for("ETH/USDT")
    assert (changed.margin_level.block_below, changed.margin_level.full_above) == (D("1.3"), D(5))
    assert changed.block_statuses == ("NORMAL",)
    assert changed.entry_funding == "borrowed"
    assert (common.margin_level.full_above, common.entry_funding) == (D("2.0"), "spot")


@pytest.mark.parametrize("named", ["BTC/USDT", "BTC/USDT:USDT"])
@pytest.mark.parametrize("asked", ["BTC/USDT", "BTC/USDT:USDT"])
def test_a_futures_pair_has_the_rules_of_its_spot_pair(named: str, asked: str) -> None:
    """There is one account behind both."""
    settings = Settings.load({"pairs": {named: {"without_account": "block"}}})
    assert settings.rules_for(asked).without_account == "block"


def test_borrowing_for_one_pair_is_borrowing() -> None:
    """Whoever must know looks at the pairs too."""
    assert not Settings.load().borrows
    assert Settings.load({"entry_funding": "borrowed"}).borrows
    assert Settings.load({"pairs": {"BTC/USDT": {"entry_funding": "borrowed"}}}).borrows


def test_settings_are_frozen() -> None:
    """Nobody loosens a limit while the bot runs."""
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.enabled = False  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.margin_level.block_below = D(1)  # type: ignore[misc]


def test_loading_leaves_what_it_was_given_alone() -> None:
    """Freqtrade's configuration is not ours to change."""
    section = {"pairs": {"BTC/USDT": {"margin_level": {"block_below": 1.4}}}}
    attribute = {"pairs": {"BTC/USDT": {"margin_level": {"full_above": 3}}}}
    Settings.load(section, attribute)
    assert section == {"pairs": {"BTC/USDT": {"margin_level": {"block_below": 1.4}}}}
    assert attribute == {"pairs": {"BTC/USDT": {"margin_level": {"full_above": 3}}}}


def test_loading_does_not_depend_on_the_callers_context() -> None:
    """A strategy with five digits of precision has the same limits."""
    section = {"margin_level": {"block_below": 1.2345678}}
    with localcontext(Context(prec=5)):
        assert Settings.load(section).margin_level.block_below == D("1.2345678")


# ----- refused

REFUSED: list[tuple[object, str, str]] = [
    # misspelt: name, and what was meant
    ({"margin_levels": {}}, "isolated_margin.margin_levels", "margin_level"),
    ({"Enabled": True}, "isolated_margin.Enabled", "enabled"),
    ({"margin_level": {"block_bellow": 1.3}}, "isolated_margin.margin_level.block_bellow", "block_below"),
    ({"liquidation_distance": {"full": 1}}, "isolated_margin.liquidation_distance.full", "full_above"),
    (
        {"pairs": {"BTC/USDT": {"margin_lvl": {}}}},
        "isolated_margin.pairs.BTC/USDT.margin_lvl",
        "margin_level",
    ),
    (
        {"pairs": {"BTC/USDT": {"margin_level": {"block": 2}}}},
        "isolated_margin.pairs.BTC/USDT.margin_level.block",
        "block_below",
    ),
    # what cannot be changed for one pair
    ({"pairs": {"BTC/USDT": {"refresh_seconds": 5}}}, "pairs.BTC/USDT.refresh_seconds", "entry_funding"),
    ({"pairs": {"BTC/USDT": {"enabled": False}}}, "pairs.BTC/USDT.enabled", "entry_funding"),
    ({"pairs": {"BTC/USDT": {"pairs": {}}}}, "pairs.BTC/USDT.pairs", "entry_funding"),
    # flags and words
    ({"enabled": "false"}, "isolated_margin.enabled", "boolean"),
    ({"enabled": 0}, "isolated_margin.enabled", "boolean"),
    ({"enabled": None}, "isolated_margin.enabled", "boolean"),
    ({"entry_funding": "Borrowed"}, "isolated_margin.entry_funding", "'spot' or 'borrowed'"),
    ({"entry_funding": "free"}, "isolated_margin.entry_funding", "'spot' or 'borrowed'"),
    ({"without_account": True}, "isolated_margin.without_account", "'allow' or 'block'"),
    ({"pairs": {"BTC/USDT": {"without_account": "deny"}}}, "BTC/USDT.without_account", "'allow' or 'block'"),
    # levels
    ({"margin_level": {"block_below": 1}}, "isolated_margin.margin_level", "above 1"),
    ({"margin_level": {"block_below": -2}}, "isolated_margin.margin_level", "above 1"),
    (
        {"margin_level": {"block_below": 3}},
        "isolated_margin.margin_level",
        "must not exceed full_above (2.0)",
    ),
    ({"margin_level": {"full_above": 1.2}}, "isolated_margin.margin_level", "block_below (1.25)"),
    ({"margin_level": {"block_below": "1.3"}}, "isolated_margin.margin_level.block_below", "number"),
    ({"margin_level": {"block_below": True}}, "isolated_margin.margin_level.block_below", "number"),
    ({"margin_level": {"block_below": None}}, "isolated_margin.margin_level.block_below", "number"),
    ({"margin_level": {"full_above": float("inf")}}, "isolated_margin.margin_level.full_above", "finite"),
    ({"margin_level": {"full_above": float("nan")}}, "isolated_margin.margin_level.full_above", "finite"),
    ({"margin_level": 1.3}, "isolated_margin.margin_level", "dictionary"),
    ({"margin_level": [1.3, 2]}, "isolated_margin.margin_level", "dictionary"),
    ({"margin_level": None}, "isolated_margin.margin_level", "dictionary"),
    (
        {"pairs": {"BTC/USDT": {"margin_level": {"block_below": 5}}}},
        "isolated_margin.pairs.BTC/USDT.margin_level",
        "must not exceed",
    ),
    # distances
    ({"liquidation_distance": {"block_below": -0.1}}, "isolated_margin.liquidation_distance", "from 0 to 1"),
    ({"liquidation_distance": {"full_above": 20}}, "isolated_margin.liquidation_distance", "from 0 to 1"),
    (
        {"liquidation_distance": {"block_below": 0.3}},
        "isolated_margin.liquidation_distance",
        "must not exceed",
    ),
    ({"level_tolerance": -0.01}, "isolated_margin.level_tolerance", "0"),
    ({"level_tolerance": 2}, "isolated_margin.level_tolerance", "0.5"),
    # statuses
    ({"block_statuses": ["MARGINCALL"]}, "isolated_margin.block_statuses", "MARGIN_CALL"),
    ({"block_statuses": ["margin_call"]}, "isolated_margin.block_statuses", "MARGIN_CALL"),
    ({"block_statuses": "MARGIN_CALL"}, "isolated_margin.block_statuses", "list"),
    ({"block_statuses": None}, "isolated_margin.block_statuses", "list"),
    ({"block_statuses": [None]}, "isolated_margin.block_statuses", "MARGIN_CALL"),
    ({"block_statuses": [["NORMAL"]]}, "isolated_margin.block_statuses", "MARGIN_CALL"),
    # times
    ({"refresh_seconds": 0}, "isolated_margin.refresh_seconds", "0.5"),
    ({"refresh_seconds": -1}, "isolated_margin.refresh_seconds", "0.5"),
    ({"refresh_seconds": 1e9}, "isolated_margin.refresh_seconds", "3600"),
    ({"refresh_seconds": "10"}, "isolated_margin.refresh_seconds", "number"),
    ({"max_age_seconds": 10}, "isolated_margin", "more than refresh_seconds"),
    ({"max_age_seconds": 0}, "isolated_margin", "more than refresh_seconds"),
    ({"refresh_seconds": 60}, "isolated_margin", "max_age_seconds"),
    ({"max_age_seconds": 1e6}, "isolated_margin.max_age_seconds", "86400"),
    ({"max_age_seconds": 10**4000}, "isolated_margin.max_age_seconds", "86400"),
    ({"recv_window": 60001}, "isolated_margin.recv_window", "60000"),
    ({"recv_window": 0}, "isolated_margin.recv_window", "1"),
    ({"recv_window": 5000.5}, "isolated_margin.recv_window", "integer"),
    ({"recv_window": "10000"}, "isolated_margin.recv_window", "integer"),
    ({"recv_window": True}, "isolated_margin.recv_window", "integer"),
    ({"weight_budget": 19}, "isolated_margin.weight_budget", "20"),
    ({"weight_budget": 12001}, "isolated_margin.weight_budget", "12000"),
    ({"weight_budget": 59}, "isolated_margin", "refresh_seconds"),
    # pairs
    (
        {"pairs": {"BTCUSDT": {}}},
        "isolated_margin.pairs",
        "'BTCUSDT', which is not a pair such as 'BTC/USDT'",
    ),
    ({"pairs": {"BTC/.*": {}, "/USDT": {}}}, "isolated_margin.pairs", "'/USDT'"),
    ({"pairs": {"BTC/USDT": None}}, "isolated_margin.pairs.BTC/USDT", "dictionary"),
    ({"pairs": {"BTC/USDT": 1.4}}, "isolated_margin.pairs.BTC/USDT", "dictionary"),
    ({"pairs": ["BTC/USDT"]}, "isolated_margin.pairs", "dictionary"),
    ({"pairs": {"BTC/USDT": {}, "BTC/USDT:USDT": {}}}, "isolated_margin.pairs", "twice"),
    # the section itself
    ([], "isolated_margin", "object"),
    ("true", "isolated_margin", "object"),
    (False, "isolated_margin", "object"),
]


@pytest.mark.parametrize(("section", "name", "allowed"), REFUSED, ids=[str(case[0])[:60] for case in REFUSED])
@pytest.mark.parametrize("as_attribute", [False, True], ids=["section", "attribute"])
def test_an_impossible_setting_is_refused_by_name(
    section: object, name: str, allowed: str, as_attribute: bool
) -> None:
    """The message names the setting and says what is allowed, in one line."""
    given: tuple[Any, Any] = (None, section) if as_attribute else (section, None)
    with pytest.raises(SettingsError) as caught:
        Settings.load(*given)
    message = str(caught.value)
    assert name in message
    assert allowed in message
    assert "\n" not in message
    assert caught.value.kind == "configuration"


def test_every_problem_is_told_at_once() -> None:
    """Whoever mends a configuration does not start the bot once for each."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({"enabled": "yes", "recv_window": 0, "colour": 1})
    assert all(name in str(caught.value) for name in ("enabled", "recv_window", "colour"))


def test_a_misspelt_setting_suggests_the_nearest() -> None:
    """And lists all that is allowed."""
    with pytest.raises(SettingsError, match=r"did you mean 'max_age_seconds'\? \(allowed: alerts, ba"):
        Settings.load({"max_age_second": 30})


@pytest.mark.parametrize(("pair", "spot"), [("BTC/USDT:USDT", "BTC/USDT"), ("BTC/USDT", "BTC/USDT")])
def test_the_settlement_suffix_does_not_count(pair: str, spot: str) -> None:
    """A futures pair is named as its spot pair."""
    assert spot_pair(pair) == spot


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"alerts": {"rom_left": 1}}, r"alerts.rom_left is not a setting; did you mean 'room_left'"),
        ({"alerts": {"room_left": 1}}, r"alerts.room_left: input should be less than 1"),
        ({"history": {"retention_days": 0}}, r"history.retention_days: input should be greater than 0"),
        ({"history": {"keys": ["a whole key"]}}, r"history.keys: must be a list of key ids, eight hex"),
        ({"history": {"db_url": "nonsense"}}, r"history.db_url: is no URL of SQLAlchemy"),
        ({"source": "history", "history": False}, r'source "history" needs history.enabled'),
        ({"source": "elsewhere"}, r"source: input should be 'exchange' or 'history'"),
        ({"backtest": "on"}, r"backtest: input should be 'off', 'replay' or 'simulate'"),
    ],
)
def test_an_impossible_setting_of_what_is_around_the_rules(section: dict[str, Any], said: str) -> None:
    """Its name and what is allowed are told."""
    with pytest.raises(SettingsError, match=said):
        Settings.load(section)


def test_a_part_can_be_switched_off_as_a_whole() -> None:
    """``false`` stands for ``{"enabled": false}``, and the rest of the part keeps its defaults."""
    settings = Settings.load({"alerts": False, "history": False})
    assert settings == Settings.load({"alerts": {"enabled": False}, "history": {"enabled": False}})
