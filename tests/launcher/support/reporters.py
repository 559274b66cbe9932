"""A reporter for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from dagster import DagsterInstance
from launcher.shop import Shop
from launcher.support.threads import in_thread

from runyard.launcher.reporter.reporter import Reporter, Timing

QUICK = Timing(drain=0.05, reconcile_every=0.2, orphan_grace=0.5, longest_pause=0.3)


@contextmanager
def reporting(shop: Shop, timing: Timing = QUICK) -> Iterator[Reporter]:
    """A reporter for the shop, on an instance of its own, until the end of the block."""
    open_instance = partial(DagsterInstance.from_ref, shop.instance.get_ref())
    reporter = Reporter(shop.launcher.open_client(), open_instance, "default", timing)
    with in_thread(reporter.run):
        try:
            yield reporter
        finally:
            reporter.stop()
