"""The decisions of the coordinator: what it hears goes in, effects come out. No I/O, no clock.

Messages of the protocol (`runyard.v1`) are its vocabulary; they are treated as values and never changed.
"""
