# SPDX-License-Identifier: GPL-2.0-only
"""Contracts from their files: a series.yaml, merged into the base and found complete, or refused.

A series without a contract is held to series/base.yaml, or to the series/base-VERSION.yaml that is
for its kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from harness.contract import Contract
from harness.contract_file import (
    AgingPath,
    ContractFile,
    Driver,
    FastPath,
    Locker,
    LockRule,
    Rule,
    Where,
)
from harness.paths import PROJECT
from harness.situation import situations
from harness.yamlpos import load_yaml_model, problem_at

BASE = PROJECT / "series" / "base.yaml"


def base_for(version: str, folder: Path = BASE.parent) -> Path:
    """The contract of the kernel without a series that is nearest to a kernel version.

    That is the newest which is not newer than it, else the oldest: how aging works stays from one
    version to the next unless it is known to change.
    """
    found = sorted(
        (_numbers(load_yaml_model(path, ContractFile).kernel), path)
        for path in folder.glob("base*.yaml")
    )
    older = [path for kernel, path in found if kernel <= _numbers(version)]
    return older[-1] if older else found[0][1]


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (6, 12, 0) of "6.12.0-rc3"."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def load(path: Path | None, base: Path | None = None) -> Contract:
    """The contract in a series.yaml, or the base's own where a series has none.

    `base` is the one for the kernel that is tested; without it, the one for the kernel that the
    series.yaml was written for. UsageError names file, line and key of what is wrong; among it a
    situation for which a driver has no rule, or more than one, and a rule whose path is not
    described.
    """
    if path is None:
        ground = load_yaml_model(base or BASE, ContractFile)
        return _merge(ground, base or BASE, ground, base or BASE)
    own = load_yaml_model(path, ContractFile)
    base = base or base_for(own.kernel)
    return _merge(own, path, load_yaml_model(base, ContractFile), base)


def load_step(whole: Path, base: Path) -> Contract:
    """What holds with the first patches of a series alone, of which `whole` is the contract.

    UsageError as load() raises it.
    """
    return replace(load(None, base), whole=load(whole, base))


def _merge(own: ContractFile, own_path: Path, ground: ContractFile, base: Path) -> Contract:
    paths = {**ground.paths, **own.paths}
    rules: dict[Driver, tuple[Rule, ...]] = {}
    for driver in get_args(Driver):
        mine: tuple[Rule, ...] | None = getattr(own.drivers, driver)
        inherited: tuple[Rule, ...] | None = getattr(ground.drivers, driver)
        where = own_path if mine is not None else base
        rules[driver] = _complete(driver, mine if mine is not None else inherited, paths, where)
    locks: dict[Locker, tuple[LockRule, ...]] = {}
    for who in get_args(Locker):
        own_rules: tuple[LockRule, ...] | None = getattr(own.mmu_lock, who)
        where = own_path if own_rules is not None else base
        rules_of_lock = own_rules if own_rules is not None else getattr(ground.mmu_lock, who)
        if rules_of_lock is not None:
            _check_one_holds(("mmu_lock", who), rules_of_lock, where)
            locks[who] = rules_of_lock
    flushes, where = own.aging_flushes, own_path
    if flushes is None:
        flushes, where = ground.aging_flushes or (), base
    if flushes:
        _check_one_holds(("aging_flushes",), flushes, where)
    faults = own.access_faults or ground.access_faults
    if faults is None:
        raise problem_at(base, ("access_faults",), "missing, and the base must have it")
    for key, names in (
        ("variants", [variant.name for variant in own.variants]),
        ("counters", [counter.name for counter in own.counters]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                raise problem_at(own_path, (key, index, "name"), f"{name} is given twice")
    for situation in situations():
        held = [one.metric for one in own.cost if one.holds(situation)]
        if twice := [metric for metric in held if held.count(metric) > 1]:
            words = f"{twice[0]} is promised twice for mode {situation.mode}"
            raise problem_at(own_path, ("cost",), words)
    if own.fast_path is not None:
        _check_excluded(own.fast_path, rules, paths, own_path)
    return Contract(
        kernel=own.kernel,
        message_id=own.message_id,
        base=own.base,
        paths=paths,
        rules=rules,
        access_faults=faults,
        mmu_lock=locks,
        aging_flushes=flushes,
        stage2_af_file=own.stage2_af_file,
        variants=own.variants,
        fast_path=own.fast_path,
        counters=own.counters,
        cost=own.cost,
    )


def _check_excluded(
    fast: FastPath,
    rules: Mapping[Driver, tuple[Rule, ...]],
    paths: Mapping[str, AgingPath],
    where: Path,
) -> None:
    """Refuse a contract that contradicts itself: a path into the fast path where there is none."""
    for driver, alternatives in rules.items():
        for situation in situations():
            rule = next(rule for rule in alternatives if rule.holds(situation))
            inside = paths[rule.path].allowed & set(fast.functions)
            if inside and not fast.is_for(situation):
                raise problem_at(
                    where,
                    ("fast_path",),
                    f"{driver} enters {', '.join(sorted(inside))} by path {rule.path!r} in mode "
                    f"{situation.mode}, stage2_af {situation.stage2_af}, where nothing may",
                )


def _complete(
    driver: Driver, rules: tuple[Rule, ...] | None, paths: Mapping[str, AgingPath], where: Path
) -> tuple[Rule, ...]:
    if rules is None:
        raise problem_at(where, ("drivers", driver), "missing, and the base must have it")
    for index, rule in enumerate(rules):
        if rule.path not in paths:
            at = ("drivers", driver, index, "path")
            raise problem_at(where, at, f"no path of the name {rule.path!r}")
    _check_one_holds(("drivers", driver), rules, where)
    return rules


def _check_one_holds(at: tuple[str, ...], rules: Sequence[Where], where: Path) -> None:
    """Refuse rules of which none holds in some situation, or more than one."""
    for situation in situations():
        number = sum(rule.holds(situation) for rule in rules)
        if number != 1:
            raise problem_at(
                where,
                at,
                f"{number} rules instead of one for mode {situation.mode}, "
                f"stage1_af {situation.stage1_af}, stage2_af {situation.stage2_af}",
            )
