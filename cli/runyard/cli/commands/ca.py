"""`runyard ca ...`: the built-in authority. All but `revoke` work on its directory, without a coordinator."""

import contextlib
import ipaddress
import json
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from runyard.cli.exit_codes import CommandFailed, UsageError
from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.cli.output.security_tables import day
from runyard.cli.output.tables import new_table, print_table
from runyard.common.security.identity import DEFAULT_TRUST_DOMAIN, Identity, InvalidIdentity, Role

if TYPE_CHECKING:
    from runyard.coordinator.ca.authority_directory import AuthorityDirectory
    from runyard.coordinator.ca.issued import Issued

app = typer.Typer(
    help="Make an authority, and certificates for everybody but nodes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAY = 86_400.0
_DAYS = {Role.COORDINATOR: 365, Role.CLIENT: 365, Role.OPERATOR: 90, Role.ADMIN: 90}
"""For how long certificates are good by default: those of people for less than those of services."""

# RFC 1123, 2.1; a first label of `*` stands for any.
_HOST_NAME = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?)*"
)

DirectoryOption = Annotated[
    Path,
    typer.Option(
        "--ca", envvar="RUNYARD_CA_DIRECTORY", metavar="DIR", help="What `runyard ca init` has made."
    ),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Name or IP address of the coordinator. May be repeated."),
]


@app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it. Keep a copy offline.")],
    coordinator: Annotated[str, typer.Option(metavar="NAME", help="Name of the coordinator.")] = "main",
    host: HostOption = None,
    admin: Annotated[str, typer.Option(metavar="NAME", help="Name of the first admin.")] = "admin",
    trust_domain: Annotated[
        str, typer.Option(metavar="NAME", help="Stands in all certificates.")
    ] = DEFAULT_TRUST_DOMAIN,
) -> None:
    """Make an authority, a certificate for the coordinator, and one for an admin."""
    hosts = _hosts(host)
    server = _identity(Role.COORDINATOR, coordinator, trust_domain)
    person = _identity(Role.ADMIN, admin, trust_domain)
    authority = _authority(directory)
    with _failing():
        authority.init(trust_domain)
        made = authority.issue(server, hosts, _DAYS[Role.COORDINATOR] * _DAY, directory / "coordinator")
        authority.issue(person, (), _DAYS[Role.ADMIN] * _DAY, directory / "admin")
    typer.echo(_next_steps(directory.absolute(), made, hosts[0]))


@app.command("issue")
def issue(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where key and certificates go.")],
    directory: DirectoryOption,
    client: Annotated[str, typer.Option(metavar="NAME", help="For a Dagster instance.")] = "",
    operator: Annotated[str, typer.Option(metavar="NAME", help="For a person who looks after nodes.")] = "",
    admin: Annotated[str, typer.Option(metavar="NAME", help="For a person who issues certificates.")] = "",
    coordinator: Annotated[str, typer.Option(metavar="NAME", help="For a coordinator; needs --host.")] = "",
    host: HostOption = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=3650, metavar="N", help="How long it is good.", show_default=False),
    ] = None,
) -> None:
    """Make a key and a certificate. Nodes get theirs by themselves: see `runyard token create`."""
    names = {Role.CLIENT: client, Role.OPERATOR: operator, Role.ADMIN: admin, Role.COORDINATOR: coordinator}
    given = [(role, name) for role, name in names.items() if name]
    if len(given) != 1:
        raise UsageError("name one of --client, --operator, --admin and --coordinator")
    ((role, name),) = given
    if host and role is not Role.COORDINATOR:
        raise UsageError("--host is for coordinators only")
    hosts = _hosts(host) if role is Role.COORDINATOR else ()
    authority = _authority(directory)
    with _failing():
        identity = _identity(role, name, authority.signing.trust_domain)
        made = authority.issue(identity, hosts, (days or _DAYS[role]) * _DAY, out)
    typer.echo(f"{made.uri} is good until {day(made.not_after)}; its files are in {out}")


@app.command("rotate")
def rotate(
    directory: DirectoryOption,
    finish: Annotated[
        bool, typer.Option("--finish", help="Trust the old authority no more, when all have moved over.")
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="With --finish: cut off those who have not moved over.")
    ] = False,
) -> None:
    """Replace the authority by a new one, without a break: begin, wait for all to move over, finish."""
    authority = _authority(directory)
    with _failing():
        if not finish:
            authority.rotate()
            typer.echo(_while_rotating(directory))
            return
        if (left := _left_behind(authority)) and not confirm:
            raise UsageError(_who_is_left(left))
        dropped = authority.finish()
    typer.echo(f"{len(dropped)} old authority is trusted no more; restart nothing")


@app.command("show")
def show(context: typer.Context, directory: DirectoryOption, output: OutputOption = None) -> None:
    """Show whom to trust, and what was given out from here. Nodes: `runyard node certificates`."""
    authority = _authority(directory)
    with _failing():
        trusted, issued = authority.authorities(), authority.issued()
        trust_domain = authority.signing.trust_domain
    if Settings.of(context, None, output).output is Output.JSON:
        content = {
            "trust_domain": trust_domain,
            "authorities": [asdict(each) for each in trusted],
            "issued": [asdict(each) for each in issued],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    table = new_table("authority", "signs", "since", "until")
    for each in trusted:
        table.add_row(each.name, "yes" if each.signs else "no", day(each.not_before), day(each.not_after))
    print_table(table, "")
    typer.echo()
    _print_issued(issued)


@app.command("revoke")
def revoke(
    context: typer.Context,
    serial: Annotated[str, typer.Argument(metavar="SERIAL", help="As `runyard ca show` gives it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For those who read the log.")] = "",
    address: AddressOption = None,
) -> None:
    """Have the coordinator refuse one certificate for good. Of a node, all: `runyard node revoke`."""
    with Settings.of(context, address).client() as client:
        client.security.revoke_certificate(serial, reason=reason)
    typer.echo(f"certificate {serial} is refused from now on")


def _authority(directory: Path) -> "AuthorityDirectory":
    try:
        from runyard.coordinator.ca.authority_directory import AuthorityDirectory
    except ModuleNotFoundError as missing:
        raise CommandFailed(
            f"`runyard ca` needs {missing.name}, which is not installed.\n"
            "Install it with: pip install 'runyard[coordinator]'"
        ) from missing
    return AuthorityDirectory(directory)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Tells people what is wrong with the directory."""
    from runyard.coordinator.ca.authority_directory import AuthorityError

    try:
        yield
    except AuthorityError as error:
        raise CommandFailed(str(error)) from error


def _identity(role: Role, name: str, trust_domain: str) -> Identity:
    try:
        return Identity(role, name, trust_domain=trust_domain)
    except InvalidIdentity as error:
        raise UsageError(str(error)) from None


def _hosts(written: Sequence[str] | None) -> tuple[str, ...]:
    """Names and addresses as certificates have them: those that clients dial."""
    if not written:
        raise UsageError("--host is missing: the name or IP address by which clients and nodes dial it")
    hosts = tuple(host.removeprefix("[").removesuffix("]") for host in written)
    for host in hosts:
        if not _is_host(host):
            raise UsageError(f"--host: {host!r} is no name of a host and no IP address; leave the port out")
    return hosts


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(text))
    return True


def _left_behind(authority: "AuthorityDirectory") -> "list[Issued]":
    """Certificates issued here that would be refused after the rotation."""
    newest = {each.uri: each for each in authority.issued()}
    renewed = {str((authority.path / own).resolve()) for own in ("coordinator", "admin")}
    return [
        each
        for each in newest.values()
        if each.authority != authority.signing.name
        and each.not_after > time.time()
        and each.directory not in renewed
    ]


def _who_is_left(left: "Sequence[Issued]") -> str:
    lines = "\n".join(f"  {each.uri} in {each.directory}" for each in left)
    one = len(left) == 1
    return (
        f"{len(left)} {'certificate' if one else 'certificates'} of the old authority "
        f"{'is' if one else 'are'} still good, and would be refused:\n{lines}\n"
        "Issue them again with `runyard ca issue`, and check `runyard node certificates` for those of nodes; "
        "or give them up with --confirm"
    )


def _next_steps(directory: Path, made: "Issued", host: str) -> str:
    there = shlex.quote(str(directory))
    return f"""The authority is in {directory}. Its reader can issue any identity: keep it private.
{made.uri} is good until {day(made.not_after)}.

1. In the settings of the coordinator:

     listen: 0.0.0.0:7171
     join_listen: 0.0.0.0:7172
     ca_directory: {directory}
     tls:
       authority: {directory}/authority.pem
       certificate: {directory}/coordinator/certificate.pem
       key: {directory}/coordinator/key.pem

2. For Dagster, on its machine: runyard ca issue --ca {there} --client dagster --out DIR

3. To give orders, as an admin:

     export RUNYARD_ADDRESS={f"[{host}]" if ":" in host else host}:7171
     export RUNYARD_TLS_AUTHORITY={there}/admin/authority.pem
     export RUNYARD_TLS_CERTIFICATE={there}/admin/certificate.pem
     export RUNYARD_TLS_KEY={there}/admin/key.pem

4. For each node: runyard token create --cluster NAME"""


def _while_rotating(directory: Path) -> str:
    there = shlex.quote(str(directory))
    return f"""A new authority signs from now on; the old one is trusted on.

1. Nodes move over when they renew. `runyard node certificates` shows who signed for whom.
2. Issue the certificates of clients, operators and admins again: `runyard ca show --ca {there}`
   lists them, `runyard ca issue --ca {there}` makes them.
3. When all have moved over: runyard ca rotate --ca {there} --finish"""


def _print_issued(issued: "Sequence[Issued]") -> None:
    table = new_table("identity", "until", "authority", "serial", "files in")
    for each in issued:
        if each.not_after > time.time():
            table.add_row(
                escape(each.uri), day(each.not_after), each.authority, each.serial, escape(each.directory)
            )
    print_table(table, "nothing was given out that has not expired")
