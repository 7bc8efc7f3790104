"""References of the spiking family."""
