"""Runs real Dagster jobs on two small clusters of this machine, and kills a worker to see what happens."""
