"""Requirements of runs: resources, label rules, and layers with their compilation."""
