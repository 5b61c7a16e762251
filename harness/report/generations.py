# SPDX-License-Identifier: GPL-2.0-only
"""Reads generations.jsonl, which harness/checks/test_pressure.py writes step by step."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

FILE = "generations.jsonl"
LONGEST = 1 << 20
"""Bytes; a file has some ten kilobytes."""
MAX_STEPS = 64
MAX_GENERATIONS = 4
"""MAX_NR_GENS of include/linux/mmzone.h: so many are there at one time."""

_MAX_PAGES = 1 << 52


class Generation(BaseModel):
    """A generation of the guest's memcg at one moment, in pages of 4 KiB."""

    model_config = ConfigDict(frozen=True)
    seq: int = Field(ge=0, le=_MAX_PAGES)
    anon: int = Field(ge=0, le=_MAX_PAGES)
    file: int = Field(ge=0, le=_MAX_PAGES)


class Step(BaseModel):
    """What was counted at one moment."""

    model_config = ConfigDict(frozen=True)
    step: str = Field(max_length=80)
    uptime: float = Field(ge=0, allow_inf_nan=False)
    """Of the host, in seconds."""
    generations: tuple[Generation, ...] = Field(max_length=MAX_GENERATIONS)
    """None, or empty ones, under the classic LRU."""
    active_anon: int = Field(ge=0, le=_MAX_PAGES)
    inactive_anon: int = Field(ge=0, le=_MAX_PAGES)


def parse(text: str) -> tuple[Step, ...]:
    """The steps in their order; ValueError says in which line something else is."""
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) > MAX_STEPS:
        raise ValueError(f"has {len(lines)} steps, more than {MAX_STEPS}")
    steps: list[Step] = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(Step.model_validate_json(line))
        except ValueError as exc:
            raise ValueError(f"line {number} is not a step") from exc
    return tuple(steps)
