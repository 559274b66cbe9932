"""The coordinator's command line."""

import asyncio
import sys

from runyard.common.errors import InvalidTlsFiles
from runyard.common.service.service_main import Service
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.server import serve
from runyard.coordinator.store.engine import StoreError


def _serve(settings: CoordinatorSettings) -> int:
    try:
        return asyncio.run(serve(settings))
    except (InvalidYamlFile, InvalidTlsFiles, AuthorityError) as error:
        print(f"runyard coordinator: {error}", file=sys.stderr)
        return 2


SERVICE = Service(
    "coordinator",
    "Accept launches from Dagster and route them to node agents.",
    CoordinatorSettings,
    _serve,
    (StoreError,),
)


def run(argv: list[str] | None = None) -> int:
    """Run the coordinator; see `Service.main`."""
    return SERVICE.main(argv)
