"""Layers of requirements in the database: the form that Runyard 0.1.0 wrote."""

from coordinator.fleet_building import FleetTrial, make_launch

from runyard.coordinator.core.requirements.requirements import RequirementLayer
from runyard.coordinator.store.rows import run_of, run_row


def test_requirements_of_a_layer_are_stored_under_the_name_that_they_had_in_0_1_0() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch(make_launch(grace=5.0))
    run = trial.run()
    row = run_row(run)
    (layer,) = row["layers"]
    assert layer.keys() == {"source", "wants"}
    assert layer["source"] == "deployment"
    assert layer["wants"]["grace"] == 5.0
    assert run_of(row, run.since).launch.layers == run.launch.layers


def test_a_layer_without_newer_fields_is_read() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch(make_launch())
    row = {**run_row(trial.run()), "layers": [{"source": "run tags", "wants": {"cluster": "east"}}]}
    assert run_of(row, 0.0).launch.layers == (RequirementLayer("run tags", cluster="east"),)
