"""In which order runs will be placed, as people are told beforehand."""

from coordinator.scheduling.queue.crowd import Crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.coordinator.core.effects import SaveRun
from runyard.coordinator.core.events.on_operator import on_cordon, on_uncordon
from runyard.coordinator.core.explain.queue_forecast import forecast_order
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.config import QueueConfig, Quota, SchedulingConfig

SHARES = ("shop", "bakery", "market", "harbour")


def test_run_that_was_refused_keeps_its_place() -> None:
    crowd = Crowd()
    crowd.join("a")
    crowd.join("b")
    held, early = crowd.launch_many(2)
    late = crowd.launch()
    crowd.trial.reject(2, early, node_id="b")
    assert crowd.waits(early)
    assert crowd.node_of(late) == "b", "the one that refused the other"
    assert crowd.finish(held) == [early]


asks = st.tuples(st.sampled_from(SHARES), st.integers(0, 2), st.sampled_from([1, 2, 3]), st.integers(0, 40))
guarantees = st.dictionaries(
    st.sampled_from(SHARES), st.just(Quota(guaranteed=Resources.of({"slots": 1}))), max_size=2
)


@settings(max_examples=60, deadline=None)
@given(all_asks=st.lists(asks, min_size=2, max_size=14), quotas=guarantees)
def test_queue_forecast_agrees_with_what_comes(
    all_asks: list[tuple[str, int, int, int]], quotas: dict[str, Quota]
) -> None:
    crowd = Crowd(SchedulingConfig(quotas=quotas, queue=QueueConfig(age_step=16.0)))
    crowd.join("a", slots=20, memory=60)
    crowd.trial.step(lambda fleet, at: on_cordon(fleet, at, "a"))
    for share, priority, memory, pause in all_asks:
        crowd.launch(share, memory=memory, priority=priority)
        crowd.wait(float(pause))
    foreseen = list(forecast_order(crowd.trial.fleet.queue, crowd.trial.clock))
    crowd.trial.asked.clear()
    crowd.trial.step(lambda fleet, at: on_uncordon(fleet, at, "a"))
    saved = [effect.run for effect in crowd.trial.asked.everything() if isinstance(effect, SaveRun)]
    assert [run.run_id for run in saved] == foreseen
