"""Tables and texts for people, JSON for scripts."""
