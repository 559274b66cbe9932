"""The books of a small shop: a Dagster project to try Runyard with."""
