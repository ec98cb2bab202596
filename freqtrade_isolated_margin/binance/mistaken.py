"""What was put in the place of a key or a secret and is none, told by name and never shown.

Binance takes secrets of three kinds (API: request security): a text of HMAC, and the private keys of
Ed25519 and RSA, which ccxt signs with as an unencrypted PEM.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from freqtrade_isolated_margin.errors import CredentialsError

_BEGINNING = "-----BEGIN"
_PATH = re.compile(r"(?i)(~|\.{0,2}[/\\]|[a-z]:[/\\]|file:).+|.+\.(pem|key|der|crt|pub|txt)")
_NO_FILE = "put in what the file holds, on one line with \\n for its line ends"
_DECRYPT = 'decrypt it ("openssl pkey -in key.pem -out plain.pem") and put in what comes out'
_PUBLIC = "is the public key, which Binance has: put in the private key that was made with it"


def check_key(key: str, name: str, secret_name: str) -> None:
    """Refuse what cannot be an API key, under the name of its setting.

    :raises CredentialsError: with the cause and what to do, without the key.
    """
    if _BEGINNING in key or _in_der(key):
        raise CredentialsError(
            f"{name} holds a PEM or what is in one: that belongs into {secret_name}, and into {name} the API "
            "key that Binance shows"
        )
    _check_words(key, name)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CredentialsError(f"{name} is no API key: it has characters that no key has")


def check_secret(secret: str, name: str) -> None:
    """Refuse what ccxt could not sign with, or Binance could not verify, under the name of its setting.

    `secret` is tidied up. What is neither a PEM nor anything that is told here counts as HMAC.

    :raises CredentialsError: with the cause and what to do, without the secret.
    """
    if _BEGINNING in secret:
        trouble = _trouble_of_pem(secret)
        if trouble:
            raise CredentialsError(f"{name} {trouble}")
        return
    _check_words(secret, name)
    trouble = _in_der(secret)
    if trouble:
        raise CredentialsError(f"{name} {trouble}")


def _check_words(text: str, name: str) -> None:
    if text[0] in "\"'" or text[-1] in "\"'":
        raise CredentialsError(f"{name} has quotes around it: take them away")
    if _PATH.fullmatch(text):
        raise CredentialsError(f"{name} is the path of a file: {_NO_FILE}")


def _trouble_of_pem(pem: str) -> str | None:
    """Say what keeps a PEM from signing; None where it can."""
    if "-----END" not in pem:
        return f"begins as a PEM and has no end: {_NO_FILE}"
    if "PUBLIC KEY-----" in pem:
        return _PUBLIC
    # The older form says it in a header, which is no base64.
    if "-----BEGIN ENCRYPTED" in pem or "Proc-Type" in pem:
        return f"is an encrypted PEM: {_DECRYPT}"
    if "PRIVATE KEY-----" not in pem:
        return "is a PEM but no private key: put in the private key that was made for Binance"
    return _trouble_of_private(pem)


def _trouble_of_private(pem: str) -> str | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - HMAC needs none
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except Exception:  # noqa: BLE001 - whatever it is, nobody can sign with it
        return f"is a PEM that cannot be read: copy it anew; {_NO_FILE}"
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        return "is a private key of a kind that Binance does not take: make one of Ed25519 or RSA"
    return None


def _in_der(text: str) -> str | None:
    """Say what is wrong where `text` is the content of a PEM without its header; None where it is none.

    An Ed25519 key has as many characters then as an HMAC secret: only reading it tells them apart.
    """
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_der_private_key,
        load_der_public_key,
    )

    try:
        der = base64.b64decode(re.sub(r"\\[rn]|\s", "", text), validate=True)
    except (binascii.Error, ValueError):
        return None
    kinds: list[tuple[Callable[[bytes], object], str]] = [
        (
            lambda der: load_der_private_key(der, password=None),
            'is the content of a PEM without its first and last line: put in all of it, from "-----BEGIN" on',
        ),
        (load_der_public_key, _PUBLIC),
    ]
    for load, trouble in kinds:
        try:
            load(der)
        except TypeError:
            return f"is the content of an encrypted PEM: {_DECRYPT}"
        except Exception:  # noqa: BLE001, S112 - not of this kind
            continue
        return trouble
    return None
