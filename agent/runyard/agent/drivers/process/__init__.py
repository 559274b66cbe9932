"""The driver for plain processes on this machine."""
