"""`python -m freqtrade_isolated_margin` is `freqtrade-isolated-margin`."""

import sys

from freqtrade_isolated_margin.commands.cli import main

sys.exit(main())
