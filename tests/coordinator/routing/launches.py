"""Launches for tests of routing rules."""

from dataclasses import replace

from coordinator.fleet_building import RUN, make_launch

from runyard.coordinator.core.model import Launch
from runyard.coordinator.core.requirements.requirements import RequirementLayer


def launch_of(
    job: str = "train_model",
    location: str = "ml",
    repository: str = "models",
    deployment: str = "prod",
    tags: dict[str, str] | None = None,
    *,
    run_id: str = RUN,
    layers: dict[str, RequirementLayer] | None = None,
) -> Launch:
    """A launch.

    Args:
        layers: By source, from the lowest; by default the deployment says nothing.
    """
    launch = replace(
        make_launch(run_id, deployment=deployment, location=location),
        job=job,
        repository=repository,
        layers=tuple(
            layer.from_source(source)
            for source, layer in (layers or {"deployment": RequirementLayer()}).items()
        ),
    ).without_secrets()
    launch.spec.tags.update(tags or {})
    return launch
