"""References of the entropy family."""
