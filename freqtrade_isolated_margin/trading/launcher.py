"""The command ``freqtrade-margin``: freqtrade, with one more exchange class to choose from."""

from __future__ import annotations

from typing import Any

import freqtrade.exchange as exchanges
from freqtrade.enums import TRADE_MODES
from freqtrade.exceptions import OperationalException
from freqtrade.exchange.binance import Binance

from freqtrade_isolated_margin.errors import SettingsError
from freqtrade_isolated_margin.trading.requirements import wants_trading


class ChosenBinance(Binance):  # type: ignore[misc]
    """What freqtrade finds under the name of Binance: makes the exchange that the configuration asks for.

    Without the setting that is freqtrade's own class, and no trace of this one. A class and no function,
    since freqtrade also lists the classes of its table and what they support.
    """

    def __new__(cls, config: dict[str, Any], **options: Any) -> Binance:  # noqa: ANN401 - freqtrade's own
        """Return an exchange that is no instance of this class, so that `__init__` is not called again.

        :raises OperationalException: where the configuration does not fit.
        """
        try:
            if not wants_trading(config):
                return Binance(config, **options)
        except SettingsError as error:
            raise OperationalException(str(error)) from None
        # Here, so that nothing of it is loaded where nobody asks for it.
        from freqtrade_isolated_margin.trading.exchange import MarginExchange  # noqa: PLC0415
        from freqtrade_isolated_margin.trading.live_exchange import LiveMarginExchange  # noqa: PLC0415

        live = config.get("runmode") in TRADE_MODES and not config.get("dry_run")
        try:
            return (LiveMarginExchange if live else MarginExchange)(config, **options)
        except AttributeError as error:
            # freqtrade takes it for a class that does not exist, and makes a generic exchange instead.
            raise OperationalException(f"the isolated margin exchange cannot be made ({error})") from error


def register() -> None:
    """Put the choice into freqtrade's table of exchange classes, its module `freqtrade.exchange`."""
    exchanges.Binance = ChosenBinance


def main(arguments: list[str] | None = None) -> None:
    """Run freqtrade with these arguments, or with those of the process."""
    from freqtrade.main import main as run_freqtrade  # noqa: PLC0415 - sets up logging as it is loaded

    register()
    run_freqtrade(arguments)
