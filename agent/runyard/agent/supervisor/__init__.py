"""Everything that runs beside a worker. Standard library only, Python 3.10 and newer."""
