"""Routing: the operator's rules, which clusters they allow for a run, and in which order."""
