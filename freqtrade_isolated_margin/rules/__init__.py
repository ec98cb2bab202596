"""What an entry may be: the settings, the rules for each pair, and the one decision. Pure."""
