"""The container that an attempt gets: from settings, code location and launch to the engine's arguments."""
