"""The cache keeps the most recently used values within its capacity."""

import pytest

from runyard.coordinator.runtime.lru_cache import LruCache


def test_least_recently_used_value_is_dropped() -> None:
    recent: LruCache[str, int] = LruCache(2)
    recent.add("a", 1)
    recent.add("b", 2)
    assert recent["a"] == 1
    recent.add("c", 3)
    assert ("a" in recent, "b" in recent, "c" in recent) == (True, False, True)
    with pytest.raises(KeyError):
        recent["b"]


def test_weights_are_bounded_and_the_latest_is_kept_in_any_case() -> None:
    recent: LruCache[str, str] = LruCache(5, len)
    for word in ("ab", "cde", "f"):
        assert recent.add(word, word) == word
    assert ("ab" in recent, "cde" in recent, "f" in recent) == (False, True, True)
    recent.add("enormous", "enormous")
    assert ("cde" in recent, "f" in recent, "enormous" in recent) == (False, False, True)
    recent.add("g", "g")
    assert ("enormous" in recent, "g" in recent) == (False, True)
