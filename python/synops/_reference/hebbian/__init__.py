"""References of the hebbian family."""
