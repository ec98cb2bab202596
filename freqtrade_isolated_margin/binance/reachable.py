"""What a bot's ``ccxt_config`` may say that keeps the margin endpoints from being asked at all, by name.

ccxt tells such a thing only with the first request, and there as an error like any other.
"""

from __future__ import annotations

import ccxt

from freqtrade_isolated_margin.errors import SettingsError

_WHERE = "exchange.ccxt_config"
_PROXIES = ("httpProxy", "httpsProxy", "socksProxy", "proxyUrl", "proxy", "proxies")
# ccxt takes each name in its own spelling and in Python's.
_SPELLINGS = {
    "httpProxy": "http_proxy",
    "httpsProxy": "https_proxy",
    "socksProxy": "socks_proxy",
    "proxyUrl": "proxy_url",
}


def check_reachable(client: ccxt.Exchange) -> None:
    """Refuse a client of ccxt that has no URL for the margin endpoints, or more than one proxy.

    Source: `ccxt.binance.sign` and `ccxt.Exchange.fetch`.

    :raises SettingsError: with the settings' names and what to do, without their values.
    """
    if "sapi" not in client.urls["api"]:
        raise SettingsError(
            f"{_WHERE}: sandbox (testnet) has no margin accounts, so that there is nothing to guard by: "
            'take it away and use a key of Binance itself, or set "isolated_margin": {"enabled": false}'
        )
    proxies = [
        name
        for name in _PROXIES
        if getattr(client, name, None) or getattr(client, _SPELLINGS.get(name, name), None)
    ]
    if len(proxies) > 1:
        raise SettingsError(
            f"{_WHERE}: {' and '.join(proxies)} are set, and ccxt takes one proxy only: "
            "keep one of them, and take the others away"
        )
