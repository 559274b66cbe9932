"""Runs real Dagster jobs on two small clusters of this machine, by rules and by tags, and kills a worker."""
