"""Client library of the Runyard coordinator: needs grpcio and protobuf, nothing else."""
