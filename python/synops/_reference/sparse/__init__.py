"""References of the sparse family."""
