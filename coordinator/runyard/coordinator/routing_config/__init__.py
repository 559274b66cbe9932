"""The operator's routing file: read, checked, and followed while the coordinator runs."""
