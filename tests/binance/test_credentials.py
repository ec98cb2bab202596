"""Where credentials come from, and the forms in which a secret may be written."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from freqtrade_isolated_margin.binance.credentials import (
    ENV_KEY,
    ENV_SECRET,
    Credentials,
    find_credentials,
    tidy_secret,
)
from freqtrade_isolated_margin.errors import CredentialsError

FROM_ENVIRONMENT = {ENV_KEY: "env-key", ENV_SECRET: "env-secret"}
FROM_BOT = {"name": "binance", "key": "bot-key", "secret": "bot-secret"}


def pair(found: Credentials | None) -> tuple[str, str] | None:
    """Return key and secret."""
    return (found.key, found.secret) if found else None


def test_the_environment_comes_first() -> None:
    """Before the bot's own."""
    assert pair(find_credentials(FROM_ENVIRONMENT, FROM_BOT)) == ("env-key", "env-secret")


def test_the_bots_own_come_second() -> None:
    """If its exchange is Binance."""
    assert pair(find_credentials({}, FROM_BOT)) == ("bot-key", "bot-secret")


@pytest.mark.parametrize("name", ["kraken", "binanceus", "binanceusdm", None])
def test_the_keys_of_another_exchange_are_not_taken(name: str | None) -> None:
    """A bot elsewhere needs the environment's."""
    assert find_credentials({}, FROM_BOT | {"name": name}) is None
    assert pair(find_credentials(FROM_ENVIRONMENT, FROM_BOT | {"name": name})) == ("env-key", "env-secret")


@pytest.mark.parametrize("empty", ["", " ", "\n", None])
def test_empty_is_none(empty: Any) -> None:
    """Empty variables fall back to the bot's, and an empty bot has none."""
    blank = {ENV_KEY: empty, ENV_SECRET: empty}
    assert pair(find_credentials(blank, FROM_BOT)) == ("bot-key", "bot-secret")
    assert find_credentials(blank, {"name": "binance", "key": empty, "secret": empty}) is None


@pytest.mark.parametrize(
    "exchange", [None, {}, {"name": "binance"}, {"name": "binance", "ccxt_config": None}]
)
def test_nothing_anywhere_is_none(exchange: dict[str, Any] | None) -> None:
    """No credentials is not an error of this function."""
    assert find_credentials({}, exchange) is None


@pytest.mark.parametrize(
    ("environ", "exchange", "given", "missing"),
    [
        ({ENV_KEY: "x"}, FROM_BOT, ENV_KEY, ENV_SECRET),
        ({ENV_SECRET: "x"}, FROM_BOT, ENV_SECRET, ENV_KEY),
        ({ENV_KEY: "x", ENV_SECRET: " "}, None, ENV_KEY, ENV_SECRET),
        ({}, {"name": "binance", "key": "x"}, "exchange.key", "exchange.secret"),
        ({}, {"name": "binance", "secret": "x"}, "exchange.secret", "exchange.key"),
    ],
)
def test_half_a_pair_is_an_error(
    environ: dict[str, str], exchange: dict[str, Any] | None, given: str, missing: str
) -> None:
    """And it says which half is missing, without falling back to anything."""
    with pytest.raises(CredentialsError, match=f"{given} is set but {missing} is not"):
        find_credentials(environ, exchange)


@pytest.mark.parametrize("name", ["key", "apiKey", "api_key"])
def test_every_name_that_freqtrade_takes_for_a_key_is_taken(name: str) -> None:
    """As freqtrade reads its own exchange section."""
    assert pair(find_credentials({}, {"name": "binance", name: "k", "secret": "s"})) == ("k", "s")


def test_the_keys_of_ccxt_config_are_taken_as_ccxt_would() -> None:
    """Whatever stands there overrides the section in the bot's client too."""
    section = FROM_BOT | {"ccxt_config": {"apiKey": "k", "secret": "s"}}
    assert pair(find_credentials({}, section)) == ("k", "s")


def test_an_all_digit_key_that_came_as_a_number_is_a_key() -> None:
    """Freqtrade coerces what its own environment variables say."""
    section = {"name": "binance", "key": 12345678901234567890, "secret": 987}
    assert pair(find_credentials({}, section)) == ("12345678901234567890", "987")


def test_spaces_around_are_no_part_of_a_key() -> None:
    """Copied with a line end, it still signs."""
    assert pair(find_credentials({ENV_KEY: " k\n", ENV_SECRET: "\ts \r\n"})) == ("k", "s")


@pytest.mark.parametrize("key", ["k y", "k\ny", "kéy", "k\x00y", "k\u200by"])
def test_a_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    """It could not even be sent as a header."""
    with pytest.raises(CredentialsError, match=ENV_KEY) as caught:
        find_credentials({ENV_KEY: key, ENV_SECRET: "s"})
    assert key not in str(caught.value)


def test_the_source_is_told() -> None:
    """Whoever wonders which key is used can see it."""
    from_environment, from_bot = find_credentials(FROM_ENVIRONMENT), find_credentials({}, FROM_BOT)
    assert from_environment is not None
    assert from_bot is not None
    assert from_environment.source == "environment"
    assert "exchange" in from_bot.source


def test_neither_key_nor_secret_is_printed() -> None:
    """In no way in which an object gets into a log."""
    found = find_credentials(FROM_ENVIRONMENT)
    shown = f"{found} {found!r} {[found]} {found!s}"
    assert "env-key" not in shown
    assert "env-secret" not in shown


# ----- PEM


def pem(kind: str) -> str:
    """Make a new private key."""
    key = Ed25519PrivateKey.generate() if kind == "Ed25519" else generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module", params=["Ed25519", "RSA"])
def secret(request: pytest.FixtureRequest) -> str:
    """A PEM secret as a key tool writes it."""
    return pem(request.param)


MANGLED: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "no end of line": str.strip,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "indented": lambda text: textwrap.indent(text, "    "),
    "tabs": lambda text: textwrap.indent(text, "\t"),
    "trailing blanks": lambda text: text.replace("\n", "  \n"),
    "literal \\n": lambda text: text.replace("\n", "\\n"),
    "literal \\r\\n": lambda text: text.replace("\n", "\\r\\n"),
    "blanks for line ends": lambda text: text.replace("\n", " "),
    "double quotes": lambda text: f'"{text.strip()}"',
    "single quotes and \\n": lambda text: "'" + text.strip().replace("\n", "\\n") + "'",
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "no line ends at all": lambda text: text.replace("\n", ""),
}


@pytest.mark.parametrize("form", list(MANGLED))
def test_a_pem_secret_is_put_into_its_one_form(secret: str, form: str) -> None:
    """Whatever an environment file made of it."""
    assert tidy_secret(MANGLED[form](secret)) == secret.strip()


@pytest.mark.parametrize("form", list(MANGLED))
def test_a_tidied_secret_can_be_loaded(secret: str, form: str) -> None:
    """It is a private key to others as well, found through the environment."""
    found = find_credentials({ENV_KEY: "k", ENV_SECRET: MANGLED[form](secret)})
    assert found is not None
    load_pem_private_key(found.secret.encode(), password=None)


def test_an_hmac_secret_is_left_as_it_is() -> None:
    """Whatever letters it has."""
    assert tidy_secret("aB3\\n-----BEGIN") == "aB3\\n-----BEGIN"


# ----- what is none

ED25519 = Ed25519PrivateKey.generate()
RSA = generate_private_key(65537, 2048)
LOCKED = BestAvailableEncryption(b"word")


def body(text: str) -> str:
    """Return what stands between the first and the last line of a PEM."""
    return "".join(text.strip().splitlines()[1:-1])


def locked(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Write a private key as an encrypted PEM."""
    return str(key.private_bytes(Encoding.PEM, form, LOCKED).decode())


def public(key: Any) -> str:
    """Write the public key of a private one as a PEM."""
    form = PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(Encoding.PEM, form).decode())


NO_SECRETS = {
    "encrypted": (locked(ED25519), "encrypted.*openssl"),
    "encrypted RSA": (locked(RSA), "encrypted.*openssl"),
    "encrypted in the older form": (locked(RSA, PrivateFormat.TraditionalOpenSSL), "encrypted.*openssl"),
    "encrypted, without its header": (body(locked(ED25519)), "encrypted.*openssl"),
    "without its header": (body(pem("Ed25519")), "without its first and last line"),
    "RSA without its header": (body(pem("RSA")), "without its first and last line"),
    "only the first line": (pem("Ed25519").splitlines()[0], "no end"),
    "public": (public(ED25519), "is the public key"),
    "public RSA": (public(RSA), "is the public key"),
    "public, without its header": (body(public(ED25519)), "is the public key"),
    "another kind": (
        generate_ec_key(SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        "Ed25519 or RSA",
    ),
    "cut": (pem("RSA")[:300] + "\n-----END PRIVATE KEY-----", "cannot be read"),
    "an absolute path": ("/home/me/geheim/key", "path of a file"),
    "a path from home": ("~/geheim.pem", "path of a file"),
    "a name of a file": ("geheim.pem", "path of a file"),
    "a path of Windows": (r"C:\geheim\key", "path of a file"),
    "quoted": ('"geheim"', "quotes"),
    "quoted by one": ("'geheim'", "quotes"),
}


@pytest.mark.parametrize("what", list(NO_SECRETS))
def test_what_cannot_sign_is_refused_by_name_without_being_shown(what: str) -> None:
    """With the setting's name and what to do, in one line."""
    secret, said = NO_SECRETS[what]
    with pytest.raises(CredentialsError, match=f"^{ENV_SECRET} .*{said}") as caught:
        find_credentials({ENV_KEY: "k", ENV_SECRET: secret})
    told = str(caught.value)
    assert "\n" not in told
    assert "geheim" not in told
    assert not any(line in told for line in filter(None, secret.splitlines()) if not line.startswith("-----"))


@pytest.mark.parametrize("key", [pem("Ed25519"), body(pem("RSA"))])
def test_a_private_key_in_the_place_of_the_key_is_swapped(key: str) -> None:
    """It tells where it belongs, and does not show it."""
    with pytest.raises(CredentialsError, match=f"belongs into {ENV_SECRET}") as caught:
        find_credentials({ENV_KEY: key, ENV_SECRET: "k" * 64})
    assert key not in str(caught.value)


@pytest.mark.parametrize(("key", "said"), [('"k"', "quotes"), ("~/key.txt", "path of a file")])
def test_a_key_that_is_quoted_or_a_path_is_refused_by_name(key: str, said: str) -> None:
    """As a secret is."""
    with pytest.raises(CredentialsError, match=f"^{ENV_KEY} .*{said}"):
        find_credentials({ENV_KEY: key, ENV_SECRET: "s"})
