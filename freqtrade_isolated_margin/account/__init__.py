"""What Binance says of an account, and what follows from it: records, maths, tiers. Pure."""
