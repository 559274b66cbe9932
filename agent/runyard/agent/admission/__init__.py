"""Accepting an assignment: the checks and preparations before a worker may start."""
