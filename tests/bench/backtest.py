"""Backtests in a process of its own, as freqtrade's command runs them, that says what each of them took.

``python -m bench.backtest ARGUMENTS-OF-FREQTRADE``. The last line of its standard output is JSON: the seconds
of processor time by strategy, in the order of the backtests, without loading candles and writing results.
With ``BENCH_PROFILE`` in the environment it prints the profile of those of the strategy Guarded as well.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import sys
import time
from collections import defaultdict
from typing import Any

from freqtrade import main as freqtrade
from freqtrade.optimize.backtesting import Backtesting


def main() -> None:
    """Run the backtests, and say what they took."""
    spent: dict[str, list[float]] = defaultdict(list)
    profile = cProfile.Profile() if os.environ.get("BENCH_PROFILE") else None
    inner = Backtesting.backtest_one_strategy

    def timed(self: Backtesting, strategy: Any, *arguments: Any, **named: Any) -> Any:
        name = strategy.get_strategy_name()
        profiled = profile if name == "Guarded" else None
        started = time.process_time()
        try:
            call = profiled.runcall if profiled else lambda function, *all_, **more: function(*all_, **more)
            return call(inner, self, strategy, *arguments, **named)
        finally:
            spent[name].append(time.process_time() - started)

    Backtesting.backtest_one_strategy = timed
    status = 0
    try:
        freqtrade.main(sys.argv[1:])
    except SystemExit as ended:
        status = int(ended.code or 0)
    if profile:
        pstats.Stats(profile).sort_stats("cumtime").print_stats("isolated_margin")
    sys.stdout.write("\n" + json.dumps(spent) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
