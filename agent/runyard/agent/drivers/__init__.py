"""Drivers start, watch and stop workers: one per kind of place."""
