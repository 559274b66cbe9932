"""YAML files that remember their lines, within bounds."""

from pathlib import Path

import pytest

from runyard.common.service.yaml_document import (
    InvalidYamlFile,
    YamlLimits,
    YamlProblem,
    read_yaml,
    read_yaml_file,
)


def problems(text: str, limits: YamlLimits | None = None, *, quote_values: bool = False) -> list[str]:
    with pytest.raises(InvalidYamlFile) as refused:
        read_yaml(text.encode(), limits or YamlLimits(), quote_values=quote_values)
    return [str(problem) for problem in refused.value.problems]


def test_every_value_knows_its_line() -> None:
    document = read_yaml(b"a: 1\nlist:\n- x\n- {b: true,\n   c: null}\n")
    assert document.value == {"a": 1, "list": ["x", {"b": True, "c": None}]}
    assert document.line_of(("a",)) == 1
    assert document.line_of(("list", 1, "c")) == 5
    assert document.problem_at(("list", 1, "c"), "is null") == YamlProblem(5, "list[1].c", "is null")


def test_a_missing_value_has_the_line_of_the_nearest_value_around_it() -> None:
    document = read_yaml(b"a: 1\nb:\n  c: 1\n")
    assert document.line_of(("b", "d", "e")) == 2
    assert document.line_of(("z",)) == 1


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_a_file_without_values_is_empty(text: str) -> None:
    document = read_yaml(text.encode())
    assert document.is_empty
    assert document.value is None


def test_a_file_that_holds_null_is_not_empty() -> None:
    assert not read_yaml(b"null").is_empty


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    assert problems("a: 1\nb: 2\na: 3") == ["line 3, a: is on line 1 already; keep one of them"]
    assert problems("a:\n  b: 1\n  b: 2") == ["line 3, a.b: is on line 2 already; keep one of them"]


def test_all_duplicate_keys_are_reported_at_once() -> None:
    assert len(problems("a: 1\na: 2\nb: 1\nb: 2")) == 2


@pytest.mark.parametrize("text", ["a: hunter2: x", "a: !!int hunter2", "a: !secret hunter2", "a: [hunter2"])
def test_no_value_is_quoted_unless_the_caller_says_that_there_are_no_secrets(text: str) -> None:
    assert not any("hunter2" in problem for problem in problems(text))


def test_a_value_is_quoted_where_the_caller_allows_it() -> None:
    (problem,) = problems("a: !!int hunter2", quote_values=True)
    assert problem == "line 1, a: 'hunter2' is not what its tag says; put it in quotes"


def test_deep_nesting_is_refused() -> None:
    limits = YamlLimits(depth=3)
    assert read_yaml(b"[[1]]", limits).value == [[1]]
    assert "is nested deeper than 3 levels" in problems("[[[1]]]", limits)[0]


def test_aliases_count_as_often_as_they_are_used() -> None:
    limits = YamlLimits(values=10)
    assert read_yaml(b"[&a [1, 2], *a, *a]", limits).value == [[1, 2]] * 3
    assert "aliases make more than 10 values" in problems("[&a [1, 2], *a, *a, *a]", limits)[0]


def test_an_alias_of_what_holds_it_is_refused() -> None:
    assert "aliases make more than" in problems("&a [*a]")[0]


def test_a_large_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1234567\n")
    limits = YamlLimits(size=10, size_remedy="write less")
    with pytest.raises(InvalidYamlFile, match=r"a\.yaml: has more than 10 bytes; write less$"):
        read_yaml_file(file, limits)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidYamlFile, match=r"gone\.yaml: cannot be read \(No such file"):
        read_yaml_file(tmp_path / "gone.yaml")
