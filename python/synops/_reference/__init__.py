"""The definition of every op in plain torch: any device, float64-able, slow. Imports torch only."""
