"""Binance's errors: code, message and HTTP status."""

from dataclasses import dataclass, field

# Codes and messages are those of Binance's error documents, which give no HTTP status per code. 401 for keys
# and 429 for weights are seen in practice. Assumed: faults of the exchange come with 5xx, the rest with 400.
# No document has the messages of -11003, -11004 and -11008. Assumed: what the first two stand for.
_MESSAGES = {
    -1000: (500, "An unknown error occurred while processing the request."),
    -1001: (500, "Internal error; unable to process your request. Please try again."),
    -1002: (401, "You are not authorized to execute this request."),
    -1003: (429, "Too much request weight used; please use WebSocket Streams for live updates."),
    -1006: (500, "An unexpected response was received from the message bus. Execution status unknown."),
    -1007: (
        408,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    ),
    -1008: (503, "Server is currently overloaded with other requests. Please try again in a few minutes."),
    -1013: (400, "Filter failure."),
    -1015: (429, "Too many new orders."),
    -1016: (503, "This service is no longer available."),
    -1020: (400, "This operation is not supported."),
    -1021: (400, "Timestamp for this request is outside of the recvWindow."),
    -1022: (400, "Signature for this request is not valid."),
    -1100: (400, "Illegal characters found in a parameter."),
    -1101: (400, "Duplicate values for a parameter detected."),
    -1102: (400, "A mandatory parameter was not sent, was empty/null, or malformed."),
    -1105: (400, "A parameter was empty."),
    -1106: (400, "A parameter was sent when not required."),
    -1115: (400, "Invalid timeInForce."),
    -1116: (400, "Invalid orderType."),
    -1117: (400, "Invalid side."),
    -1120: (400, "Invalid interval."),
    -1121: (400, "Invalid symbol."),
    -1131: (400, "recvWindow must be less than 60000"),
    -2008: (400, "Invalid Api-Key ID."),
    -2010: (400, "Account has insufficient balance for requested action."),
    -2011: (400, "Unknown order sent."),
    -2013: (400, "Order does not exist."),
    -2014: (401, "API-key format invalid."),
    -2015: (401, "Invalid API-key, IP, or permissions for action."),
    -3003: (400, "Margin account does not exist."),
    -3006: (400, "Your borrow amount has exceed maximum borrow amount."),
    -3011: (400, "Your input date is invalid."),
    -3012: (400, "Borrow is banned for this asset."),
    -3013: (400, "Borrow amount less than minimum borrow amount."),
    -3015: (400, "Repay amount exceeds borrow amount."),
    -3020: (400, "Transfer out amount exceeds max amount."),
    -3021: (400, "Margin account are not allowed to trade this trading pair."),
    -3023: (400, "You can't transfer out/place order under current margin level."),
    -3027: (400, "This is not a valid margin asset."),
    -3041: (400, "Balance is not enough"),
    -3045: (400, "The system does not have enough asset now."),
    -3999: (400, "This function is only available for invited users"),
    -5013: (400, "Asset transfer failed: insufficient balance"),
    -11001: (400, "Isolated margin account does not exist."),
    -11003: (400, "The number of isolated margin accounts is at its limit."),
    -11004: (400, "The isolated margin account is not empty."),
    -11008: (400, "Your borrow amount has exceed the limit of your collateral."),
}


@dataclass
class BinanceError(Exception):
    """An answer of the form `{"code": …, "msg": …}`."""

    code: int
    msg: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look up the message that belongs to the code, unless one was given."""
        self.msg = self.msg or status_and_message(self.code)[1]
        super().__init__(self.code, self.msg)

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return status_and_message(self.code)[0]

    @property
    def body(self) -> dict[str, object]:
        """The JSON object that is answered."""
        return {"code": self.code, "msg": self.msg}


def status_and_message(code: int) -> tuple[int, str]:
    """HTTP status and default message of a code; 400 for one that is not listed."""
    return _MESSAGES.get(code, (400, "Error."))


def mandatory(name: str) -> BinanceError:
    """Build the error for a parameter that is missing or cannot be read."""
    return BinanceError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> BinanceError:
    """Build the error for a parameter with characters that do not belong there."""
    return BinanceError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def filter_failure(name: str) -> BinanceError:
    """Build the error for an order that breaks one of its symbol's filters."""
    return BinanceError(-1013, f"Filter failure: {name}")
