"""The examples in docs/requirements.md work as shown."""

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from coordinator.requirements.jobs import implicit_job, merged_layer

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.tags import SCHEMA, WRITTEN, layer_from_config, layer_from_tags

PAGE = (Path(__file__).parents[3] / "docs" / "requirements.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} in the page"
    return found[1]


def test_the_dictionary_has_every_key_and_is_understood() -> None:
    config = json.loads(block("json"))
    assert config.keys() == SCHEMA.keys()
    layer_from_config(config, "the page")


def test_the_table_has_every_key() -> None:
    table = PAGE[PAGE.index("| key |") : PAGE.index("Rules on labels")]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", table, re.MULTILINE)
    assert sorted(key for row in rows for key in re.findall(r"\w+", row)) == sorted(SCHEMA)


def test_the_tags_that_runyard_writes_are_named() -> None:
    for name in WRITTEN:
        assert f"`runyard/{name}`" in PAGE


def test_the_definitions_have_the_requirements_that_the_page_states() -> None:
    code: dict[str, Any] = {}
    exec(block("python"), code)
    layer = merged_layer(implicit_job(code["orders"], code["report"]))
    assert layer is not None
    assert [str(rule) for rule in layer.labels] == ["disk=ssd", "zone=a|b"]
    assert dict(layer.resources) == {"memory": 16 << 30}
    job: dg.JobDefinition = code["nightly"]
    assert layer_from_tags(job.tags, "the run").cluster == "lab"


def test_the_context_of_the_code_location_is_understood() -> None:
    context = yaml.safe_load(block("yaml"))["container_context"]["runyard"]
    assert dict(layer_from_config(context, "the page").resources) == {"memory": 4 << 30}


@pytest.mark.parametrize(
    ("where", "tags"),
    [("op train", {"runyard/memory": "much"}), ("the run", {"runyard/memroy": "4Gi"})],
)
def test_refusals_read_as_shown(where: str, tags: dict[str, str]) -> None:
    with pytest.raises(InvalidField) as caught:
        layer_from_tags(tags, where)
    assert f"    {caught.value}\n" in PAGE
