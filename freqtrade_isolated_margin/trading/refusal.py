"""The error that refuses an order: one that freqtrade survives, whoever asked for the order."""

from __future__ import annotations

from freqtrade.exceptions import DependencyException
from freqtrade.rpc.rpc import RPCException


class OrderRefusedError(DependencyException, RPCException):  # type: ignore[misc]
    """An order is not sent: the guard refuses it, or the account is not fit for it.

    Its loop catches a `DependencyException` at entries, increases and replacements, logs it and goes on
    (`enter_positions`, `process_open_trade_positions`, `handle_replace_order`); Telegram and the REST API
    answer an `RPCException` of ``/forceenter`` with its message.
    """

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.message = message
