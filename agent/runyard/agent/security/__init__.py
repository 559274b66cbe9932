"""The node's certificate: joining, storage and renewal."""
