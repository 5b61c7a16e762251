# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest
from kernel_helpers import AGE, GIT_ENV, YOUNG, as_mail, create, edit, toy_tree

from harness.errors import UsageError
from harness.kernel import series
from harness.kernel.source import Source

ONE, TWO = edit("kvm/mmu.c", AGE), edit("kvm/mmu.c", YOUNG)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", "-").replace("_patch", ".patch")).write_text(text)
    return folder


def box(tmp_path: Path, *mails: str) -> str:
    path = tmp_path / "t.mbox"
    path.write_text("".join(mails))
    return str(path)


def subjects(loaded: series.Series) -> list[str]:
    return [patch.subject for patch in loaded.patches]


def test_a_folder_is_sorted_by_number_and_its_cover_letter_skipped(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "f",
        **{
            "0000__cover_patch": as_mail("[PATCH 0/2] cover", "\nbase-commit: 0123456789ab\n"),
            "a_patch": as_mail("[PATCH 2/2] two", TWO, "2@example.org"),
            "b_patch": as_mail("[PATCH 1/2] one", ONE),
        },
    )
    loaded = series.load(str(folder))
    assert subjects(loaded) == ["one", "two"]
    assert loaded.base_commit == "0123456789ab"
    assert loaded.touched == ("kvm/mmu.c",)
    assert loaded.patches[0].author == "A Person <a@example.org>"


def test_a_series_file_gives_the_order(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "f",
        a_patch=as_mail("one", ONE),
        b_patch=as_mail("two", TWO),
        c_patch="ignored",
        series="# order\nb.patch\na.patch -p1\n",
    )
    assert subjects(series.load(str(folder))) == ["two", "one"]


def test_a_series_file_names_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "out.patch").write_text(as_mail("one", ONE))
    folder = write(tmp_path / "f", series="../out.patch\n")
    with pytest.raises(UsageError, match=r"series names out\.patch, which is no file of"):
        series.load(str(folder))


def test_an_mbox_with_replies_out_of_order_and_two_revisions(tmp_path: Path) -> None:
    spec = box(
        tmp_path,
        as_mail("[PATCH v2 2/2] two", TWO, "v2-2@example.org"),
        as_mail("Re: [PATCH v2 2/2] two", "> diff --git a/x b/x\n" + ONE, "r@example.org"),
        as_mail("[PATCH 1/1] old", TWO, "v1-1@example.org"),
        as_mail("[PATCH v2 0/2] cover", "", "v2-0@example.org"),
        as_mail("[PATCH v2 1/2] one", ONE, "v2-1@example.org"),
    )
    loaded = series.load(spec)
    assert subjects(loaded) == ["one", "two"]
    assert loaded.message_id == "v2-0@example.org"
    assert loaded.subject == "[PATCH v2 0/2] cover"


def test_a_compressed_mbox(tmp_path: Path) -> None:
    path = tmp_path / "t.mbox.gz"
    mails = as_mail("[PATCH 1/2] one", ONE) + as_mail("[PATCH 2/2] two", TWO)
    path.write_bytes(gzip.compress(mails.encode()))
    assert subjects(series.load(str(path))) == ["one", "two"]


def test_the_same_patch_twice_counts_once(tmp_path: Path) -> None:
    twice = as_mail("[PATCH 1/1] one", ONE) + as_mail("[PATCH 1/1] one", ONE)
    assert subjects(series.load(box(tmp_path, twice))) == ["one"]


def test_two_patches_of_one_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"two patches 1/1: .*one.* and .*other"):
        series.load(
            box(tmp_path, as_mail("[PATCH 1/1] one", ONE), as_mail("[PATCH 1/1] other", TWO))
        )


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "f",
        a_patch=as_mail("[PATCH 1/3] one", ONE),
        c_patch=as_mail("[PATCH 3/3] three", TWO),
    )
    with pytest.raises(UsageError, match=r"patch 2/3 is missing"):
        series.load(str(folder))


def test_a_patch_without_a_number_among_numbered_ones(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "f",
        a_patch=as_mail("[PATCH 1/1] one", ONE),
        b_patch=as_mail("[PATCH] two", TWO),
    )
    with pytest.raises(UsageError, match=r"b\.patch has no number n/m"):
        series.load(str(folder))


def test_of_single_patches_the_newest_revision_counts(tmp_path: Path) -> None:
    spec = box(tmp_path, as_mail("[PATCH] one", ONE), as_mail("[PATCH v2] two", TWO))
    assert subjects(series.load(spec)) == ["two"]


def test_files_given_one_by_one_are_taken_as_given(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "f",
        a_patch=as_mail("[PATCH 2/3] two", TWO),
        b_patch=as_mail("[PATCH 1/3] one", ONE),
    )
    names = [str(folder / "a.patch"), str(folder / "b.patch")]
    assert subjects(series.load(names)) == ["two", "one"]
    assert subjects(series.load(",".join(names))) == ["two", "one"]
    assert subjects(series.load(names[0])) == ["two"]


def test_a_bare_diff_is_a_series(tmp_path: Path) -> None:
    (tmp_path / "x.diff").write_text(ONE)
    assert subjects(series.load(str(tmp_path / "x.diff"))) == ["x.diff"]


def test_a_carried_series_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "series").mkdir()
    folder = write(tmp_path / "series/mine", a_patch=as_mail("[PATCH] one", ONE))
    (folder / "series.yaml").write_text("name: mine\n")
    monkeypatch.setattr(series, "PROJECT", tmp_path)
    loaded = series.load("mine")
    assert (loaded.name, loaded.contract) == ("mine", folder / "series.yaml")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.patch").write_text(content)
    with pytest.raises(UsageError, match=r"x\.patch is empty"):
        series.load(str(tmp_path / "x.patch"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is empty: it holds no \*\.patch file"):
        series.load(str(tmp_path))


# ---- a contract here, the patches there --------------------------------------------------------

COVER = "20230217041230.2417228-1-a@example.org"
SECOND = "20230217041230.2417228-2-a@example.org"


def contract(tmp_path: Path, **files: str) -> str:
    folder = write(tmp_path / "harvest", **files)
    (folder / "series.yaml").write_text('kernel: "6.2"\n')
    return str(folder)


def test_an_mbox_under_the_contract_of_a_folder(tmp_path: Path) -> None:
    mbox = box(
        tmp_path, as_mail("[PATCH 0/1] all", "", COVER), as_mail("[PATCH 1/1] one", ONE, SECOND)
    )
    folder = contract(tmp_path)
    loaded = series.load([folder], Path(mbox))
    assert (loaded.name, loaded.contract) == ("harvest", Path(folder) / "series.yaml")
    assert subjects(loaded) == ["one"]
    assert loaded.message_id == COVER
    assert loaded.digest == series.load(mbox).digest


def test_a_contract_without_patches_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="harvest is a contract without patches: give them by --mbox"
    ):
        series.load(contract(tmp_path))


@pytest.mark.parametrize("name", ["a.patch", "series"])
def test_patches_in_two_places_are_refused(tmp_path: Path, name: str) -> None:
    mbox = box(tmp_path, as_mail("one", ONE))
    folder = contract(tmp_path)
    (Path(folder) / name).write_text(as_mail("one", ONE))
    with pytest.raises(UsageError, match="has patches of its own; give one or the other"):
        series.load([folder], Path(mbox))


@pytest.mark.parametrize("spec", [["{mbox}"], ["{folder}", "{folder}"], ["{empty}"]])
def test_an_mbox_needs_one_contract(tmp_path: Path, spec: list[str]) -> None:
    mbox = box(tmp_path, as_mail("one", ONE))
    (tmp_path / "empty").mkdir()
    places = {"mbox": mbox, "folder": contract(tmp_path), "empty": tmp_path / "empty"}
    with pytest.raises(UsageError, match=r"name the contract too, a folder with a series\.yaml"):
        series.load([name.format(**places) for name in spec], Path(mbox))


def test_an_mbox_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--mbox .*none\.mbox: no such file"):
        series.load([contract(tmp_path)], tmp_path / "none.mbox")


@pytest.mark.parametrize("first", [COVER, SECOND])
def test_the_mails_of_the_contract(tmp_path: Path, first: str) -> None:
    loaded = series.load(box(tmp_path, as_mail("one", ONE, first)))
    assert series.check_message_id(loaded, COVER) is None
    assert series.check_message_id(loaded, None) is None


def test_other_mails_than_the_contracts_are_refused(tmp_path: Path) -> None:
    loaded = series.load(
        box(tmp_path, as_mail("one", ONE, "20230526234435.662652-1-a@example.org"))
    )
    with pytest.raises(UsageError, match=f"is that of {COVER}, these patches are 20230526234435"):
        series.check_message_id(loaded, COVER)


def test_patches_without_a_message_id_are_told(tmp_path: Path) -> None:
    text = as_mail("one", ONE).replace("Message-ID: <1@example.org>\n", "")
    note = series.check_message_id(series.load(box(tmp_path, text)), COVER)
    assert note == f"the patches have no Message-Id; the contract is that of {COVER}"


def test_the_contract_of_the_project_without_patches() -> None:
    with pytest.raises(UsageError, match="lockless-harvest-v1 is a contract without patches"):
        series.load("lockless-harvest-v1")


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_that_is_no_patch_is_named(tmp_path: Path, as_folder: bool) -> None:
    (tmp_path / "x.patch").write_text("Dear all,\n\nthis is no patch.\n")
    with pytest.raises(UsageError, match=r"x\.patch is no patch"):
        series.load(str(tmp_path if as_folder else tmp_path / "x.patch"))


def test_an_mbox_of_words_is_empty(tmp_path: Path) -> None:
    spec = box(tmp_path, as_mail("[PATCH 0/2] cover", ""), as_mail("Re: [PATCH 0/2] c", ""))
    with pytest.raises(UsageError, match="is empty: there is no patch in it"):
        series.load(spec)


def test_a_spec_that_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'no-such-series': no such file or folder"):
        series.load("no-such-series")


@pytest.mark.parametrize(
    "evil",
    [create("../evil", "x\n"), create(".git/hooks/x", "x\n"), create("etc", "/etc", "120000")],
)
def test_a_patch_that_leaves_the_tree_is_named(tmp_path: Path, evil: str) -> None:
    spec = box(tmp_path, as_mail("[PATCH 1/2] one", ONE), as_mail("[PATCH 2/2] evil", evil))
    with pytest.raises(UsageError, match=r"patch 2 \(evil\) in .*t\.mbox: .*(evil|\.git|etc)"):
        series.load(spec)


def test_the_digest_is_of_diffs_and_order_alone(tmp_path: Path) -> None:
    def digest(*mails: str) -> str:
        return series.load(box(tmp_path, *mails)).digest

    plain = digest(as_mail("[PATCH 1/2] one", ONE), as_mail("[PATCH 2/2] two", TWO))
    renamed = digest(
        as_mail("[RFC v7 1/2] break it", ONE, "x@example.org", "Other words.\n"),
        as_mail("[RFC v7 2/2] mend it", TWO),
    )
    swapped = digest(as_mail("[PATCH 1/2] two", TWO), as_mail("[PATCH 2/2] one", ONE))
    assert plain == renamed
    assert plain != swapped
    assert plain != digest(as_mail("[PATCH] one", ONE))


def base(commit: str | None) -> Source:
    return Source(
        dir=Path("/nowhere"), digest="d", version="6.12", description="that", base_commit=commit
    )


def test_base_commits_are_compared(tmp_path: Path) -> None:
    trailer = "\nbase-commit: 0123456789abcdef0123456789abcdef01234567\n"
    loaded = series.load(box(tmp_path, as_mail("[PATCH] one", ONE + trailer)))
    full = "0123456789abcdef0123456789abcdef01234567"
    assert loaded.base_commit == full
    assert series.check_base(loaded, base(full)) is None
    with pytest.raises(UsageError, match=r"based on commit 0123.*that is at ffff"):
        series.check_base(loaded, base("f" * 40))
    mark = series.check_base(loaded, base("f" * 40), allow_other_base=True)
    assert mark is not None and full in mark
    unknown = series.check_base(loaded, base(None))
    assert unknown == f"base-commit {full} cannot be verified against that"


def test_a_series_without_a_base_commit_fits_any_source(tmp_path: Path) -> None:
    loaded = series.load(box(tmp_path, as_mail("[PATCH] one", ONE)))
    assert series.check_base(loaded, base("f" * 40)) is None


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in GIT_ENV.items():
        monkeypatch.setenv(name, value)
    tree = toy_tree(tmp_path / "toy")
    script = (
        "git init -q -b main && git add -A && git commit -qm base && git tag base"
        " && sed -i 's/page + 1/page + 2/' kvm/mmu.c && git commit -qam 'kvm: one'"
        " && sed -i 's/page & 1/page \\& 3/' kvm/mmu.c && git commit -qam 'kvm: two'"
    )
    subprocess.run(script, shell=True, check=True, cwd=tree)
    return tree


def test_a_range_of_commits(repository: Path) -> None:
    loaded = series.load(f"git:{repository}#base..main")
    assert subjects(loaded) == ["kvm: one", "kvm: two"]
    head = subprocess.check_output(["git", "rev-parse", "base"], cwd=repository, text=True)
    assert loaded.base_commit == head.strip()


def test_a_range_keeps_bytes_that_are_not_utf8(repository: Path) -> None:
    with (repository / "kvm/mmu.c").open("ab") as file:
        file.write(b"/* gr\xfcn */\n")
    subprocess.run(["git", "commit", "-qam", "latin"], check=True, cwd=repository)
    loaded = series.load(f"git:{repository}#base..main")
    assert b"+/* gr\xfcn */\n" in loaded.patches[2].diff


@pytest.mark.parametrize(
    ("commits", "complaint"),
    [("main..main", "is empty"), ("base..nowhere", "git:.*nowhere"), ("base", "want git:FOLDER")],
)
def test_a_range_that_is_none(repository: Path, commits: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        series.load(f"git:{repository}#{commits}")
