"""Where the key and the secret come from, and the forms in which a secret may be written."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from freqtrade_isolated_margin.binance.mistaken import check_key, check_secret
from freqtrade_isolated_margin.errors import CredentialsError

ENV_KEY = "ISOLATED_MARGIN_API_KEY"
ENV_SECRET = "ISOLATED_MARGIN_API_SECRET"  # noqa: S105 - the name of a variable

# The names under which freqtrade takes a key, in its own order (`Exchange._init_ccxt`).
_KEY_NAMES = ("api_key", "apiKey", "key")

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_PEM_LINE = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and its secret. Neither is shown when this is printed."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    source: str
    """Where they were found, in words."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: whatever holds a guard would carry them along."""
        raise TypeError("credentials are neither pickled nor copied")


def find_credentials(
    environ: Mapping[str, str], exchange: Mapping[str, Any] | None = None
) -> Credentials | None:
    """Take the environment's credentials, or else the bot's own if its exchange is Binance.

    `exchange` is the configuration's section of that name as its user wrote it: freqtrade empties the
    one that it hands to strategies. Empty values count as not set. None where there are none at all.

    :raises CredentialsError: where half of a pair is set, or a key cannot be one.
    """
    found = _pair(environ.get(ENV_KEY), environ.get(ENV_SECRET), ENV_KEY, ENV_SECRET, "environment")
    if found or not exchange or exchange.get("name") != "binance":
        return found
    client = exchange.get("ccxt_config") or {}
    key = client.get("apiKey") or next((exchange[name] for name in _KEY_NAMES if exchange.get(name)), None)
    secret = client.get("secret") or exchange.get("secret")
    return _pair(key, secret, "exchange.key", "exchange.secret", "the bot's exchange section")


def _pair(key: object, secret: object, key_name: str, secret_name: str, source: str) -> Credentials | None:
    # freqtrade turns an all-digit value from its own environment variables into a number.
    key, secret = str(key or "").strip(), str(secret or "").strip()
    if not key and not secret:
        return None
    if not key or not secret:
        given, missing = (key_name, secret_name) if key else (secret_name, key_name)
        raise CredentialsError(f"{given} is set but {missing} is not: both are needed, or neither")
    check_key(key, key_name, secret_name)
    secret = tidy_secret(secret)
    check_secret(secret, secret_name)
    return Credentials(key, secret, source)


def tidy_secret(secret: str) -> str:
    r"""Put a PEM secret into the one form that can sign; leave an HMAC secret as it is.

    Environment files produce CRLF line ends, indentation, quotes and a literal ``\n``. ccxt tells Ed25519
    from RSA by the length (`binance.sign`), so a stray space would make it sign with the wrong one.
    """
    found = _PEM.search(secret)
    if not found:
        return secret
    label, body = found.groups()
    packed = re.sub(r"\\[rn]|\s", "", body)
    lines = [f"-----BEGIN {label}-----", *textwrap.wrap(packed, _PEM_LINE), f"-----END {label}-----"]
    return "\n".join(lines)
