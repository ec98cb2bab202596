"""freqtrade's side, thin: the mixin's callbacks, locks, charts, protection, replay, self-check."""
