"""Shared by the tests of the command line: the fake coordinator of the client's tests."""

from client.conftest import coordinator, orders, runyard

__all__ = ["coordinator", "orders", "runyard"]
