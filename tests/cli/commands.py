"""Running commands in the test's own process, and what they are run on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RUN = "8b1a9953-c461-4296-a827-abf8c47804d7"
SIBLING = "8b1a9953-ffff-4296-a827-abf8c47804d7"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]
