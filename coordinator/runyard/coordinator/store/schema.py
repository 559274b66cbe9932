"""Tables of the database. Every change needs a migration in `migrations/versions`."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("resume_number", Integer, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("policies", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("phase_data", JSON, nullable=False),
    Column("outcome", LargeBinary),
    Column("stop", JSON),
    Column("times", JSON, nullable=False),
    Column("reported", Boolean, nullable=False),
    Column("snapshot_id", String(64), nullable=False),
    Column("layers", JSON, nullable=False),
    Column("route", JSON, nullable=False),
    Column("repository", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("share", Text, nullable=False),
    Column("avoided", JSON, nullable=False),
    Column("launched_by", Text, nullable=False, server_default=""),
    Index("runs_by_snapshot", "snapshot_id"),
)

run_events = Table(
    "run_events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("node", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("run_events_by_run", "run_id", "seq"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", String(128), primary_key=True),
    Column("cluster", Text, nullable=False),
    Column("installation", String(64), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("offer", JSON, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("last_heard", Float, nullable=False),
    Column("confirmed_epoch", BigInteger, nullable=False, server_default="0"),
    Column("service", JSON, nullable=False, server_default='{"kind": "open"}'),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("snapshot_id", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("stored_at", Float, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("secret_digest", String(64), nullable=False),
    Column("cluster", Text, nullable=False),
    Column("node_id", String(128), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("uri", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("node_id", String(128), nullable=False),
    Column("key_digest", String(64), nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("not_after", Float, nullable=False),
    Column("authority", String(64), nullable=False),
    Column("pem", Text, nullable=False),
    Index("certificates_by_node", "node_id"),
)

node_revocations = Table(
    "node_revocations",
    metadata,
    Column("node_id", String(128), primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

certificate_revocations = Table(
    "certificate_revocations",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)
