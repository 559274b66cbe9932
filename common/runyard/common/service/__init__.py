"""Shared by the two services, coordinator and agent: settings, command line and structured logs."""
