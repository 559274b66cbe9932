"""Messages of the protocol to and from the own types of the coordinator: parsing, limits, views."""
