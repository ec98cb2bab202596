"""`python -m freqtrade_isolated_margin` is `freqtrade-isolated-margin`."""

import sys

from .cli import main

sys.exit(main())
