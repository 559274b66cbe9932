"""How workers are started, watched and stopped: one driver per kind of place."""
