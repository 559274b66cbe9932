"""`runyard route ...`"""

from collections.abc import Iterable
from typing import Annotated

import typer

from runyard.cli.commands.route_check import check_file
from runyard.cli.exit_codes import UsageError
from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.cli.output.explanation import print_explanation
from runyard.cli.output.json_output import to_json

app = typer.Typer(help="Say where runs go.", no_args_is_help=True, rich_markup_mode=None)
app.command("check")(check_file)


@app.command("explain")
def explain_launch(
    context: typer.Context,
    job: Annotated[str, typer.Option(metavar="JOB", help="Name of the job; __ASSET_JOB for ad-hoc assets.")],
    location: Annotated[str, typer.Option(metavar="NAME", help="Code location of the job.")] = "",
    repository: Annotated[str, typer.Option(metavar="NAME", help="Repository of the job.")] = "",
    deployment: Annotated[
        str, typer.Option(metavar="NAME", help="Dagster deployment that launches.")
    ] = "default",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Tag of the run. May be repeated.")
    ] = None,
    snapshot: Annotated[
        str, typer.Option(metavar="ID", help="Job snapshot whose op tags count; default: the job's latest.")
    ] = "",
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Say where a run would go now, and why. Launches nothing."""
    settings = Settings.of(context, address, output)
    tags = _tags(tag or [])
    with settings.client() as client:
        explanation = client.explain_launch(
            job=job,
            location=location,
            repository=repository,
            deployment=deployment,
            tags=tags,
            job_snapshot_id=snapshot,
        )
    if settings.output is Output.JSON:
        typer.echo(to_json(explanation))
    else:
        print_explanation(explanation)


def _tags(written: Iterable[str]) -> dict[str, str]:
    tags = {}
    for text in written:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise UsageError(f"tag {text!r} is not KEY=VALUE, such as runyard/cpu=2")
        tags[key.strip()] = value
    return tags
