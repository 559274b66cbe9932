"""Messages about invalid YAML that do not quote it as the parser does: its lines may hold secrets."""

import yaml


def explained(error: yaml.YAMLError) -> str:
    """Return the problem and its place, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())  # about a character that no YAML may hold
    said = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark else said
