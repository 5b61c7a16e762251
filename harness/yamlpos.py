# SPDX-License-Identifier: GPL-2.0-only
"""Read a YAML file into a pydantic model; every error names file, line and key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import UsageError

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 32

# That of libyaml is ten times as fast; a PyYAML that was built without it has its own alone.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)

Location = Sequence[int | str]
Model = TypeVar("Model", bound=BaseModel)


def load_yaml_model(path: Path, model: type[Model]) -> Model:
    """The file's content as a `model`.

    UsageError has one line for each thing that is wrong: "file:line: key: problem". Duplicate
    keys, anchors and aliases (a few lines of which expand without bound), tags beyond plain YAML,
    a second document, and a file that is too long or nested too deeply are refused.
    """
    root = _compose(path)
    try:
        data = yaml.SafeLoader("").construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(path, exc) from None
    except ValueError as exc:  # such as the date 2023-02-31
        raise UsageError(f"{path}:1: {exc}") from None
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        problems = [
            _problem(path, root, _location(root, error), error["msg"]) for error in exc.errors()
        ]
        raise UsageError("\n".join(problems)) from None


def problem_at(path: Path, location: Location, problem: str) -> UsageError:
    """An error of the caller's own about the value at `location` (keys and indices) in a file."""
    return UsageError(_problem(path, _compose(path), location, problem))


def _compose(path: Path) -> yaml.Node | None:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path}: not UTF-8 text ({exc.reason} at byte {exc.start})") from None
    try:
        _refuse_bombs(path, text)
        root = yaml.compose(text, Loader=_LOADER)
        if root is not None:
            _refuse_duplicates(path, root, ())
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(path, exc) from None
    # The loader in Python has this for a character that there cannot be.
    except (yaml.YAMLError, ValueError) as exc:
        raise UsageError(f"{path}:1: {exc}") from None
    return root


def _refuse_bombs(path: Path, text: str) -> None:
    """Refuse what PyYAML spends time or stack on out of proportion to the file's size."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{path}: longer than {MAX_CHARACTERS} characters")
    depth = 0
    for token in yaml.scan(text, Loader=_LOADER):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            raise UsageError(f"{path}:{line}: anchors and aliases are not supported")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise UsageError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels")


def _syntax_error(path: Path, exc: yaml.MarkedYAMLError) -> UsageError:
    mark = exc.problem_mark or exc.context_mark
    line = mark.line + 1 if mark is not None else 1
    return UsageError(f"{path}:{line}: {exc.problem or exc.context}")


def _refuse_duplicates(path: Path, node: yaml.Node, location: tuple[int | str, ...]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_duplicates(path, item, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            here = (*location, str(key.value))
            line = key.start_mark.line + 1
            if here[-1] in seen:
                first = seen[str(key.value)]
                raise UsageError(f"{path}:{line}: {_dotted(here)}: already given in line {first}")
            seen[str(key.value)] = line
            _refuse_duplicates(path, value, here)


def _location(root: yaml.Node | None, error: ErrorDetails) -> Location:
    """Where an error is, in keys and indices of the file.

    pydantic puts the tag of a discriminated union into its path, where the file has no key, and
    blames the whole for a tag that it does not know.
    """
    found: list[int | str] = []
    node: Any = root
    for at, part in enumerate(error["loc"]):
        absent = error["type"] == "missing" and at == len(error["loc"]) - 1
        if isinstance(node, yaml.MappingNode):
            value = next((pair[1] for pair in node.value if pair[0].value == str(part)), None)
            if value is None and not absent:
                continue
            node = value
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            node = node.value[int(part)]
        found.append(part)
    discriminator = error.get("ctx", {}).get("discriminator")
    return (*found, discriminator.strip("'")) if discriminator is not None else found


def _problem(path: Path, root: yaml.Node | None, location: Location, message: str) -> str:
    line = _line(root, location)
    key = _dotted(location)
    return f"{path}:{line}: {key}: {message}" if key else f"{path}:{line}: {message}"


def _line(root: yaml.Node | None, location: Location) -> int:
    """The line of the key or item; of the nearest thing around it where it is missing."""
    if root is None:
        return 1
    node: Any = root
    line: int = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
