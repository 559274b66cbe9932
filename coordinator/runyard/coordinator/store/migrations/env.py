"""Run by Alembic; the connection comes from `store.engine`."""

from alembic import context

from runyard.coordinator.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
