"""The coordinator: takes launches, places them on nodes and keeps the one durable account of every run."""
