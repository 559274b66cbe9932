"""The shop's tables. Materialise any of them ad hoc: such a run carries no tags of its own."""

import random
from collections import Counter

import dagster as dg

SEED = 7
PRICES = {"apple": 3, "bread": 4, "cheese": 9}


@dg.asset(group_name="shop")
def orders() -> list[str]:
    """A day of orders: one product name each."""
    return random.Random(SEED).choices(list(PRICES), k=200)


@dg.asset(group_name="shop")
def revenue(orders: list[str]) -> dict[str, int]:
    """What each product brought in."""
    return {product: count * PRICES[product] for product, count in Counter(orders).items()}


@dg.asset(group_name="shop")
def report(context: dg.AssetExecutionContext, revenue: dict[str, int]) -> str:
    """One line for the owner."""
    best = max(revenue, key=revenue.__getitem__)
    line = f"{sum(revenue.values())} in all, most of it from {best}"
    context.log.info(line)
    return line


@dg.asset(group_name="shop", op_tags={"runyard/labels": "disk=ssd", "runyard/memory": "256Mi"})
def forecast() -> dict[str, int]:
    """What will be sold tomorrow. Its runs go to a node with a fast disk, also when started ad hoc."""
    tomorrow = random.Random(SEED + 1).choices(list(PRICES), k=200)
    return dict(Counter(tomorrow))
