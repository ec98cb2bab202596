"""ccxt in, accounts out: the adapter, its credentials, and one read of the accounts at one moment."""
