"""What the two services, coordinator and agent, have in common: settings and structured logs."""
