"""The audit log: every decision, its author and its outcome."""
