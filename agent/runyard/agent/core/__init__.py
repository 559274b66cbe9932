"""The decisions of the agent: pure functions of what it holds and what it hears. No I/O, no clock."""
