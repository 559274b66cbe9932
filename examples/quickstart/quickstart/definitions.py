"""What Dagster loads: `dagster dev -w workspace.yaml`."""

import dagster as dg

from . import assets, jobs

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([assets]),
    jobs=[jobs.stocktake, jobs.parallel_stocktake, jobs.noop, jobs.pay, jobs.keep_open],
    executor=dg.in_process_executor,  # for runs of assets, which belong to no job
)
