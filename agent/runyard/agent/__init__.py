"""The node agent: starts run workers, watches them and reports to the coordinator."""
