"""`runyard doctor`: checks of the coordinator, its nodes, TLS and Dagster's settings."""
