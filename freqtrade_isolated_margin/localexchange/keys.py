"""API keys and the signatures that they verify."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

_PERMISSIONS = {
    "ipRestrict": False,
    "enableReading": True,
    "enableWithdrawals": False,
    "enableInternalTransfer": False,
    "enableMargin": True,
    "enableFutures": False,
    "permitsUniversalTransfer": False,
    "enableVanillaOptions": False,
    "enableFixApiTrade": False,
    "enableFixReadOnly": True,
    "enableSpotAndMarginTrading": True,
    "enablePortfolioMarginTrading": False,
}


def _token() -> str:
    """Make 64 characters, as long as Binance's keys."""
    return secrets.token_hex(32)


@dataclass(frozen=True)
class ApiKey:
    """A key of the user, with its own permissions. All keys see the same accounts."""

    key: str = field(default_factory=_token)
    secret: str = field(default_factory=_token, repr=False)
    public_key: str | None = None
    """PEM of an Ed25519 or RSA public key; HMAC with the secret without it."""
    permissions: Mapping[str, bool] = field(default_factory=dict)
    """Fields of `apiRestrictions` that differ from those of an ordinary trading key."""

    def restrictions(self) -> dict[str, bool]:
        """All permissions, as `apiRestrictions` lists them."""
        return {**_PERMISSIONS, **self.permissions}

    def may(self, permission: str) -> bool:
        """Whether the key has a permission."""
        return self.restrictions()[permission]

    def verifies(self, payload: str, signature: str) -> bool:
        """Whether the signature, as it was sent, belongs to the payload."""
        signed = payload.encode(
            "latin-1"
        )  # as the query was decoded, so that these are the bytes that were sent
        if self.public_key is None:
            # Binance does not mind the case of a hexadecimal signature.
            expected = hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest()
            return hmac.compare_digest(expected.encode(), signature.lower().encode())
        return _verifies_asymmetric(self.public_key, signed, signature)


def _verifies_asymmetric(pem: str, payload: bytes, signature: str) -> bool:
    public_key = load_pem_public_key(pem.encode())
    try:
        raw = base64.b64decode(unquote(signature), validate=True)
        if isinstance(public_key, Ed25519PublicKey):
            public_key.verify(raw, payload)
        elif isinstance(public_key, RSAPublicKey):
            public_key.verify(raw, payload, PKCS1v15(), SHA256())
        else:
            raise TypeError(f"not a key that Binance takes: {type(public_key).__name__}")
    except (InvalidSignature, binascii.Error):
        return False
    return True
