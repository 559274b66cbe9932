"""The reporter: writes the outcomes of workers into Dagster."""
