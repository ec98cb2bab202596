"""``python -m freqtrade_isolated_margin.trading`` is ``freqtrade-margin``."""

from freqtrade_isolated_margin.trading.launcher import main

if __name__ == "__main__":
    main()
