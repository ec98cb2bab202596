"""The exceptions of this package. None of their messages holds a key, a signature or a signed URL."""

from __future__ import annotations


class IsolatedMarginError(Exception):
    """Anything that keeps the accounts from being read.

    `kind` is a stable word for programs; `code` is Binance's error code where it sent one.
    """

    kind = "error"

    def __init__(self, message: str, *, code: int | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class UnavailableError(IsolatedMarginError):
    """The account cannot be read now; another attempt may succeed.

    `retry_after` is how many seconds the exchange asks to wait, 0 where it does not say.
    """

    kind = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.retry_after = retry_after


class NotSentError(UnavailableError):
    """A request that was held back, for a limit: it has certainly had no effect."""


class CredentialsError(IsolatedMarginError):
    """The key is missing, malformed or refused: only its owner can help."""

    kind = "credentials"


class AnswerError(IsolatedMarginError):
    """The exchange answered something that makes no sense as an account."""

    kind = "answer"


class SettingsError(IsolatedMarginError):
    """A setting is misspelt or impossible. The message names it and says what is allowed."""

    kind = "configuration"
