"""The agent's settings, one module for each section."""
