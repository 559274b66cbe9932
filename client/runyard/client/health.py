"""The standard health question, asked by hand so that no further package is needed."""

import enum
from typing import Final

# https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto
CHECK_METHOD: Final = "/grpc.health.v1.Health/Check"

# HealthCheckRequest with its one field, `service`, left empty: the server as a whole.
CHECK_REQUEST: Final = b""


class Health(enum.Enum):
    """Health of a server; the values are those of HealthCheckResponse.ServingStatus."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def read_health(response: bytes) -> Health:
    """Reads a HealthCheckResponse: field 1, a varint. Whatever else it is, is UNKNOWN."""
    if len(response) == 2 and response[0] == 0x08 and response[1] <= 3:
        return Health(response[1])
    return Health.UNKNOWN
