"""Dagster's web server over HTTP, as the browser uses it."""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

LAUNCH = """
mutation ($execution: ExecutionParams!) {
  launchRun(executionParams: $execution) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""

TERMINATE = """
mutation ($run: String!) {
  terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) { __typename }
}
"""


@dataclass(frozen=True)
class WebServer:
    """One web server with one code location."""

    url: str
    location: str

    def launch(self, job: str) -> str:
        """Launches a job from the launchpad; returns the run's ID."""
        selector = {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "jobName": job,
        }
        answer = self._ask(LAUNCH, execution={"selector": selector, "runConfigData": {}})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def terminate(self, run_id: str) -> str:
        """Terminates a run; returns the name of the answer's type."""
        return str(self._ask(TERMINATE, run=run_id)["terminateRun"]["__typename"])

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data
