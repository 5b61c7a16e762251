# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.kernel import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(key: str = "k", content: str = "whole", seconds: float = 5) -> cache.Entry:
    def fill(stage: Path) -> None:
        (stage / "file").write_text(content)

    return cache.get_or_make("kind", key, fill, deadline=Deadline(seconds), what="it", need=1)


def leftovers() -> list[str]:
    return sorted(path.name for path in cache.folder("staging").iterdir())


def test_an_entry_is_made_once_and_leaves_no_staging() -> None:
    assert make(content="first").fresh
    again = make(content="second")
    assert not again.fresh
    assert (again.path / "file").read_text() == "first"
    assert leftovers() == []


def test_an_entry_whose_making_failed_does_not_exist() -> None:
    def fill(stage: Path) -> None:
        (stage / "half").write_text("half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.get_or_make("kind", "k", fill, deadline=Deadline(5), what="it", need=1)
    assert cache.lookup("kind", "k") is None
    assert leftovers() == []


def test_a_killed_maker_leaves_no_entry_and_is_swept() -> None:
    child = os.fork()
    if child == 0:

        def fill(stage: Path) -> None:
            (stage / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

        cache.get_or_make("kind", "k", fill, deadline=Deadline(5), what="it", need=1)
    os.waitpid(child, 0)
    assert cache.lookup("kind", "k") is None
    assert len(leftovers()) == 2
    assert make("other").fresh
    assert leftovers() == []


def test_staging_of_the_living_is_not_swept() -> None:
    with cache.staging("kind", "k") as stage:
        assert cache.sweep() == []
        assert stage.is_dir()


def test_of_two_that_want_an_entry_one_waits() -> None:
    began, entries = threading.Event(), []

    def slow(stage: Path) -> None:
        began.set()
        time.sleep(0.2)
        (stage / "file").write_text("slow")

    def first() -> None:
        entries.append(
            cache.get_or_make("kind", "k", slow, deadline=Deadline(5), what="it", need=1)
        )

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(5)
    second = make(content="second")
    thread.join()
    assert entries[0].fresh and not second.fresh
    assert (second.path / "file").read_text() == "slow"


def test_waiting_for_another_ends_with_the_deadline() -> None:
    lock = cache.folder("locks") / "kind-k"
    with (
        cache.locked(lock, Deadline(5), "it"),
        pytest.raises(DeadlineExceeded, match="another kvm-harness that works on it"),
    ):
        make(seconds=0.05)


def test_disk_full_says_where_and_how_much() -> None:
    def fill(stage: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    need = 3 * cache.GIB // 2
    with pytest.raises(InfraError, match=r"disk full at .*cache.* during it.* 1\.5 GiB") as caught:
        free = shutil.disk_usage(cache.kernel_cache()).free
        cache.get_or_make("kind", "k", fill, deadline=Deadline(5), what="it", need=min(need, free))
    assert caught.value.exit_code == 3
    assert cache.lookup("kind", "k") is None
    assert leftovers() == []


def test_too_little_space_is_seen_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, cache.GIB // 2))
    with pytest.raises(InfraError, match=r"needs 2\.0 GiB free at .*, where 0\.5 GiB are"):
        cache.require_space(2 * cache.GIB, "the build")


def test_a_discarded_entry_is_made_anew() -> None:
    make(content="first")
    cache.discard("kind", "k")
    assert cache.lookup("kind", "k") is None
    assert (make(content="second").path / "file").read_text() == "second"
    assert leftovers() == []


@pytest.mark.parametrize("key", ["../out", "", ".hidden", "a/b"])
def test_a_key_names_one_folder(key: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        make(key)


def test_the_least_recently_used_are_pruned_but_not_those_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(cache.KEEP, "kind", 2)
    for number, key in enumerate("abcd"):
        child = os.fork()
        if child == 0:
            make(key)
            os._exit(0)
        os.waitpid(child, 0)
        os.utime(cache.folder("kind") / key, (number, number))
    assert not (cache.folder("kind") / "a").exists()
    make("c")
    make("e")
    assert sorted(p.name for p in cache.folder("kind").iterdir()) == ["c", "e"]
    make("f")
    make("g")
    assert sorted(p.name for p in cache.folder("kind").iterdir()) == ["c", "e", "f", "g"]
    assert leftovers() == []


def test_folders_without_permissions_are_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o500)
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/link").symlink_to("../kept")
    (tmp_path / "a/b/c").chmod(0)
    (tmp_path / "a/b").chmod(0)
    cache.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o500
