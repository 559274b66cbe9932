"""Parts of an attempt's `spec` file that admission writes and drivers read."""
