"""The session with the coordinator: connection, messages, delivery, log uploads."""
