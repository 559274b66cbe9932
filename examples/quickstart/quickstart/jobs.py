"""Jobs that show how runs live and end: quick and slow, in one process and in several, failing, endless."""

import time

import dagster as dg


class Work(dg.Config):
    """How long an op pretends to work."""

    seconds: float = 0.5


@dg.op
def count_stock(config: Work) -> int:
    """Counts what is on the shelves."""
    time.sleep(config.seconds)
    return 120


@dg.op
def count_deliveries(config: Work) -> int:
    """Counts what came in."""
    time.sleep(config.seconds)
    return 30


@dg.op
def close_books(context: dg.OpExecutionContext, config: Work, stock: int, deliveries: int) -> int:
    """Adds up the day."""
    time.sleep(config.seconds)
    context.log.info(f"{stock + deliveries} items in the books")
    return stock + deliveries


@dg.graph
def stocktaking() -> None:
    """Two counts that know nothing of each other, and their sum."""
    close_books(count_stock(), count_deliveries())


stocktake = stocktaking.to_job(
    name="stocktake",
    description="All steps one after another in the run worker itself: the quickest way for short steps.",
    executor_def=dg.in_process_executor,
)

parallel_stocktake = stocktaking.to_job(
    name="parallel_stocktake",
    description="Every step in a process of its own, two at a time: the run worker has children.",
    executor_def=dg.multiprocess_executor.configured({"max_concurrent": 2}),
)


@dg.op
def do_nothing() -> None:
    """Takes no time and no memory, so that a run of it costs what starting a worker costs."""


@dg.job(executor_def=dg.in_process_executor)
def noop() -> None:
    """The cheapest run there is."""
    do_nothing()


@dg.op
def pay_invoice() -> None:
    """Fails, as payments sometimes do."""
    raise dg.Failure("the account is empty", metadata={"balance": 0})


@dg.job(executor_def=dg.in_process_executor)
def pay() -> None:
    """Fails in user code: Dagster knows why by itself."""
    pay_invoice()


@dg.op
def serve_customers(context: dg.OpExecutionContext) -> None:
    """Serves until the run is terminated; Dagster then interrupts the sleep, and the door gets closed."""
    context.log.info("The shop is open.")
    try:
        while True:
            time.sleep(0.2)
    finally:
        context.log.info("The shop is closed.")


@dg.job(executor_def=dg.in_process_executor)
def keep_open() -> None:
    """Runs until it is stopped."""
    serve_customers()
