"""The audit log: who did what, and the result."""
