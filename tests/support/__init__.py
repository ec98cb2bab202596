"""What several tests need: accounts, bots, faults, databases, a network that ends at loopback."""
