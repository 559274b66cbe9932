"""How this node gets its certificate, and keeps one that is valid."""
