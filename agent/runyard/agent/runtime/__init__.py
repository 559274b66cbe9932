"""The agent's runtime: carries out the core's decisions on the drivers and the disk."""
