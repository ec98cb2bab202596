"""Orders in the margin accounts themselves: an exchange class for freqtrade, off unless a setting asks."""
