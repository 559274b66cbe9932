"""The Docker engine's API: calls, events, images."""
