"""Decisions of the agent: a state machine without I/O or clock."""
