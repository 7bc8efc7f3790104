"""What every benchmark shares: sizes, implementations on their inputs, measurement."""
