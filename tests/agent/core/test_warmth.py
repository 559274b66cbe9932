"""Which warm servers a node keeps, decided without clocks and processes."""

from runyard.agent.core.warmth import (
    BUSY,
    LONGEST_RETRY,
    Close,
    Cold,
    Limits,
    Open,
    Preloading,
    Ready,
    Resting,
    Unusable,
    Wait,
    Warm,
    WarmEffect,
    WarmPhase,
    Warmth,
)


def warmth(**limits: float) -> Warmth:
    return Warmth(Limits(**limits))  # type: ignore[arg-type]


def ready(servers: Warmth, name: str, now: float = 0.0, seconds: float = 2.0) -> str:
    """Makes a server that forks; gives its process."""
    _, effects = servers.on_start(now, name)
    process = opened(effects)
    assert servers.on_ready(now + seconds, process, 1, seconds, 10, 10) == []
    return process


def opened(effects: list[WarmEffect]) -> str:
    (process,) = [effect.process for effect in effects if isinstance(effect, Open)]
    return process


def phase(servers: Warmth, name: str) -> WarmPhase:
    return next(server.phase for server in servers.all() if server.name == name)


def test_the_first_run_of_an_environment_starts_cold_and_has_a_server_made() -> None:
    servers = warmth()
    choice, effects = servers.on_start(0.0, "a")
    assert isinstance(choice, Cold)
    assert effects == [Open("a", "a-1")]
    assert servers.on_start(0.1, "a") == (Cold("its server is still importing"), [])
    servers.on_ready(2.0, "a-1", 1, 2.0, 10, 10)
    assert servers.on_start(2.1, "a") == (Warm("a-1"), [])


def test_a_refusal_replaces_the_server_and_a_run_waits_for_one_that_is_nearly_there() -> None:
    servers = warmth()
    process = ready(servers, "a")
    servers.on_start(3.0, "a")
    effects = servers.on_refused(3.0, process, "x.py has changed")
    assert effects == [Close("a-1"), Open("a", "a-2")]
    assert isinstance(servers.on_start(3.5, "a")[0], Cold)
    assert servers.on_start(4.5, "a") == (Wait(0.5), [])
    assert isinstance(servers.on_start(5.5, "a")[0], Cold)
    (server,) = servers.all()
    assert (server.all_forks, server.cold_starts) == (0, 4)


def test_news_of_a_process_that_was_replaced_changes_nothing() -> None:
    servers = warmth()
    process = ready(servers, "a")
    servers.on_refused(3.0, process, "x.py has changed")
    assert servers.on_refused(3.0, process, "x.py has changed") == []
    assert servers.on_unusable(3.1, process, "gone") == []
    assert isinstance(phase(servers, "a"), Preloading)


def test_a_process_that_comes_too_late_is_let_go() -> None:
    servers = warmth()
    servers.on_start(0.0, "a")
    servers.on_unusable(180.0, "a-1", "it was not ready in 180 s")
    assert servers.on_ready(190.0, "a-1", 1, 190.0, 10, 10) == [Close("a-1")]


def test_a_server_that_is_of_no_use_is_tried_again_ever_more_rarely() -> None:
    servers = warmth()
    now = 0.0
    for pause in (30.0, 60.0, 120.0):
        _, effects = servers.on_start(now, "a")
        servers.on_unusable(now, opened(effects), "2 threads")
        assert servers.on_start(now + pause - 1, "a") == (Cold("2 threads"), [])
        now += pause
    for _ in range(20):
        _, effects = servers.on_start(now, "a")
        servers.on_unusable(now, opened(effects), "2 threads")
        now += LONGEST_RETRY
    assert isinstance(phase(servers, "a"), Unusable)


def test_an_operator_has_a_server_tried_again_at_once() -> None:
    servers = warmth()
    _, effects = servers.on_start(0.0, "a")
    servers.on_unusable(0.0, opened(effects), "2 threads")
    ready(servers, "b")
    assert servers.on_refresh(1.0, "a") == [Open("a", "a-3")]
    assert servers.on_refresh(1.0, "nobody") == []
    assert servers.on_refresh(1.0, None) == [
        Close("a-3"),
        Open("a", "a-4"),
        Close("b-1"),
        Open("b", "b-2"),
    ]


def test_a_refresh_of_all_servers_wakes_none_that_rests_unless_it_is_named() -> None:
    servers = warmth(max_servers=1)
    ready(servers, "a")
    ready(servers, "b", now=100.0)
    assert isinstance(phase(servers, "a"), Resting)
    assert servers.on_refresh(200.0, None) == [Close("b-1"), Open("b", "b-2")]
    assert opened(servers.on_refresh(200.0, "a")) == "a-2"


def test_the_least_recently_used_server_makes_room_unless_all_are_busy() -> None:
    servers = warmth(max_servers=2)
    ready(servers, "a", now=0.0)
    ready(servers, "b", now=10.0)
    choice, effects = servers.on_start(20.0, "c")
    assert choice == Cold("all 2 servers are in use (warm.max_servers)")
    assert effects == []
    _, effects = servers.on_start(BUSY + 5.0, "c")
    assert effects == [Close("a-1"), Open("c", "c-1")]
    assert isinstance(phase(servers, "a"), Resting)


def test_servers_are_given_up_one_by_one_while_memory_is_short() -> None:
    servers = warmth(min_available=0.1)
    ready(servers, "a", now=0.0)
    ready(servers, "b", now=1.0)
    assert servers.on_tick(2.0, 0.05, {}) == [Close("a-1")]
    assert servers.on_start(3.0, "a") == (Cold("memory is short, so no server is made"), [])
    assert servers.on_tick(4.0, 0.05, {}) == [Close("b-1")]
    assert servers.on_tick(5.0, 0.5, {}) == []
    assert servers.on_start(6.0, "a")[1] == [Open("a", "a-2")]


def test_servers_are_replaced_when_they_are_old_worn_or_large() -> None:
    servers = warmth(max_age=100.0, max_runs=2, max_rss=1000)
    old, worn, large = ready(servers, "old"), ready(servers, "worn", 50.0), ready(servers, "large", 50.0)
    for _ in range(2):
        servers.on_start(60.0, "worn")
    effects = servers.on_tick(103.0, 1.0, {large: 1001, worn: 1, old: 1})
    assert [effect.process for effect in effects if isinstance(effect, Close)] == [old, worn, large]
    assert len(effects) == 6


def test_expected_runs_have_their_server_made_once() -> None:
    servers = warmth()
    assert servers.on_ahead(0.0, "a") == [Open("a", "a-1")]
    assert servers.on_ahead(0.0, "a") == []
    servers.on_ready(1.0, "a-1", 1, 1.0, 10, 10)
    assert isinstance(phase(servers, "a"), Ready)
