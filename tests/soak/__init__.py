"""The soak: several bots on one exchange, for as long as one likes."""
