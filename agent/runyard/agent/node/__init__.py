"""The machine: its facts, capacity, pressure, GPUs and means of isolation."""
