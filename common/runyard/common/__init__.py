"""Shared by the services and the tools: names, quantities, addresses, identities, settings, logs."""
