"""Prompts are chosen by pattern and task, copied, measured, packed and unpacked; a stranger's tar file does no harm."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from banks import read_card, replace_file, write_card
from shared_banks import contents, panda, refused
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.cli.main import app
from promptpanda.errors import PandaError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_pattern_removes_what_it_means_and_nothing_else(bank, ids):
    assert json.loads(panda("bank", "rm", "books-s[01]-*", "--json")) == {"removed": ids[:2]}
    assert Bank(bank, others={}).ids() == ids[2:]
    assert "of the form 'x-*'" in refused("bank", "rm", "films-*", "x-*")
    assert Bank(bank, others={}).ids() == ids[2:], "all must be there before the first goes"


def test_the_name_of_a_task_removes_its_only_prompt_and_never_the_best_of_several(bank, ids):
    assert "has 3 prompts" in refused("bank", "rm", "books")
    assert json.loads(panda("bank", "rm", "films", "--json")) == {"removed": [ids[3]]}


def test_a_terminal_is_asked_first(bank, ids):
    """A real terminal: the question is answered there."""

    def answered(answer: bytes) -> int:
        main, other = pty.openpty()
        command = [sys.executable, "-c", "from promptpanda.cli.main import main; main()", "bank", "rm", "films-*"]
        process = subprocess.Popen(
            command, stdin=other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=bank.parent
        )
        os.write(main, answer)
        process.communicate(timeout=300)
        os.close(main)
        os.close(other)
        return process.returncode

    assert answered(b"n\n") == 2
    assert Bank(bank, others={}).ids() == ids
    assert answered(b"y\n") == 0
    assert Bank(bank, others={}).ids() == ids[:3]


def test_yes_asks_nothing(bank, ids):
    panda("bank", "rm", "books-*", "--yes")
    assert Bank(bank, others={}).ids() == ids[3:]


def test_a_task_stands_for_its_best_prompt_wherever_one_is_meant(bank, ids):
    best = json.loads(panda("bank", "show", "books", "--json"))["id"]
    assert json.loads(panda("bank", "verify", "books", "--json"))["sound"] == [best]
    assert json.loads(panda("bank", "copy", "books", "other", "--json"))["sent"] == [best]
    assert panda("bank", "card", "books") == panda("bank", "card", best)


def test_a_pattern_means_prompts_of_the_own_bank_and_an_id_also_those_of_others(bank, ids, tmp_path):
    from promptpanda.sharing.selection import chosen

    (tmp_path / "own").mkdir()
    shutil.copytree(bank / ids[0], tmp_path / "own" / ids[0])
    own = Bank(tmp_path / "own", others={"installed": Bank(bank, others={})})
    assert chosen(own, ["*"]) == [tmp_path / "own" / ids[0]]
    assert chosen(own, ["*", ids[3]]) == [tmp_path / "own" / ids[0], bank / ids[3]]
    with pytest.raises(PandaError, match="No prompt in the bank .* is of the form 'films-\\*'"):
        chosen(own, ["films-*"])


def test_a_copy_is_the_same_bytes_and_made_once(bank, ids):
    first = json.loads(panda("bank", "copy", "books-*", "films", "other", "--json"))
    assert sorted(first["sent"]) == ids
    assert all(contents(bank / name) == contents(bank.parent / "other" / name) for name in ids)
    again = json.loads(panda("bank", "copy", "*", "other", "--json"))
    assert (again["sent"], sorted(again["unchanged"])) == ([], ids)


def test_a_damaged_prompt_is_not_copied(bank, ids):
    with (bank / ids[0] / "head.safetensors").open("ab") as file:
        file.write(b"x")
    assert "damaged" in refused("bank", "copy", "*", "other")
    assert not (bank.parent / "other").exists()


def test_another_prompt_of_the_same_id_is_replaced_by_force_alone(bank, ids, tmp_path):
    panda("bank", "copy", ids[0], "other")
    card = read_card(tmp_path / "other" / ids[0])
    write_card(tmp_path / "other" / ids[0], card | {"run": "another"})
    assert "--force" in refused("bank", "copy", "*", "other")
    assert Bank(tmp_path / "other", others={}).ids() == ids[:1], "nothing was sent"
    panda("bank", "copy", "*", "other", "--force")
    assert contents(bank / ids[0]) == contents(tmp_path / "other" / ids[0])


def test_scores_that_were_added_travel_alone(bank, ids, tmp_path):
    panda("bank", "copy", ids[0], "other")
    card = read_card(bank / ids[0])
    card["test"] = {"scores": {"accuracy": 0.5}, "n_test": 4, "data_fingerprint": "x"}
    write_card(bank / ids[0], card)
    assert json.loads(panda("bank", "copy", ids[0], "other", "--json"))["updated"] == [ids[0]]
    assert read_card(tmp_path / "other" / ids[0])["test"]["n_test"] == 4


def test_disk_use_adds_up(bank, ids):
    (bank / "notes.txt").write_bytes(b"x" * 1000)
    used = json.loads(panda("bank", "du", "--json"))
    expected = {name: sum(map(len, contents(bank / name).values())) for name in ids}
    assert used["prompts"] == expected
    assert (used["rest"], used["bytes"]) == (1000, 1000 + sum(expected.values()))
    assert list(used["prompts"].values()) == sorted(expected.values(), reverse=True)
    assert "4 prompts" in panda("bank", "du")


def test_a_tar_file_brings_everything_over(bank, ids, model, tmp_path):
    panda("bank", "export", "all.tar")
    first = Path("all.tar").read_bytes()
    with tarfile.open("all.tar") as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == set(ids)
    taken = json.loads(panda("bank", "import", "all.tar", "--bank", "new", *model, "--json"))
    assert (taken["pulled"], taken["without_seen_texts"]) == (ids, [])
    assert all(contents(bank / name) == contents(tmp_path / "new" / name) for name in ids)
    assert json.loads(panda("bank", "import", "all.tar", "--bank", "new", *model, "--json"))["unchanged"] == ids
    assert "already exists" in refused("bank", "export", "all.tar")
    panda("bank", "export", "all.tar", "--force")
    assert Path("all.tar").read_bytes() == first, "equal prompts, equal bytes"


def test_a_record_that_is_left_out_is_told(bank, ids, model):
    panda("bank", "export", "one.tar", "--prompt", ids[0], "--no-seen-texts")
    result = CliRunner().invoke(app, ["bank", "import", "one.tar", "--bank", "new", *model])
    assert result.exit_code == 0
    assert f"No record of the texts that they saw is with {ids[0]}" in result.stderr
    panda("bank", "verify", "--bank", "new")


def test_prompts_of_another_model_are_left_out(bank, ids, tiny_folder):
    panda("bank", "export", "all.tar")
    other = ["--model", str(tiny_folder("roberta"))]
    assert "belong to other models" in refused("bank", "import", "all.tar", "--bank", "new", *other)
    assert Bank("new", others={}).ids() == []
    assert json.loads(panda("bank", "import", "all.tar", "--bank", "new", "--any-model", "--json"))["pulled"] == ids


def packed(path, members):
    """A tar file of (name, content or a member with its own kind)."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                content(member)
                archive.addfile(member)
    return path


def link(kind, target):
    def made(member):
        member.type, member.linkname = kind, target

    return made


def sparse(member):
    member.type = tarfile.GNUTYPE_SPARSE


EVIL = {
    "a symlink": ("{id}/head.safetensors", link(tarfile.SYMTYPE, "/etc/passwd")),
    "a hard link": ("{id}/head.safetensors", link(tarfile.LNKTYPE, "{id}/card.json")),
    "a folder's symlink": ("{id}", link(tarfile.SYMTYPE, "/tmp")),
    "a device": ("{id}/head.safetensors", link(tarfile.CHRTYPE, "")),
    "a pipe": ("{id}/head.safetensors", link(tarfile.FIFOTYPE, "")),
    "a sparse file": ("{id}/head.safetensors", sparse),
    "a path upwards": ("../{id}/card.json", b"{}"),
    "a path upwards inside": ("{id}/../../evil", b"x"),
    "an absolute path": ("/tmp/evil-of-panda", b"x"),
    "a pickle": ("{id}/adapter_model.bin", b"x"),
    "a deeper path": ("{id}/more/card.json", b"x"),
    "another name": ("readme.txt", b"x"),
    "the card again": ("{id}/card.json", b"{}"),
}


@pytest.mark.parametrize("what", EVIL)
def test_of_a_strangers_tar_nothing_is_taken(what, bank, ids, model, tmp_path):
    name, evil = EVIL[what]
    good = [(f"{ids[0]}/{file}", content) for file, content in contents(bank / ids[0]).items()]
    path = packed(tmp_path / "evil.tar", [*good, (name.format(id=ids[0]), evil)])
    before = {place for place in tmp_path.rglob("*") if bank not in place.parents}
    assert "nothing was imported" in refused("bank", "import", path, "--bank", "new", *model)
    after = {place for place in tmp_path.rglob("*") if bank not in place.parents}
    assert after - before == {tmp_path / "new"}, "only the bank's empty folder came"


def test_a_bomb_is_refused_before_it_fills_the_disk(bank, ids, model, tmp_path):
    """The header tells of a terabyte; what comes is 512 bytes."""
    member = tarfile.TarInfo(f"{ids[0]}/head.safetensors")
    member.size = 10**12
    (tmp_path / "bomb.tar").write_bytes(member.tobuf() + b"\0" * 512 * 3)
    assert "more than is allowed" in refused("bank", "import", "bomb.tar", "--bank", "new", *model)


def test_one_bad_prompt_keeps_all_of_a_tar_out(bank, ids, model):
    replace_file(bank / ids[3], "head.safetensors", b"no tensors")
    members = [(f"{one}/{file}", data) for one in ids for file, data in contents(bank / one).items()]
    packed(Path("mixed.tar"), members)
    assert f"{ids[3]} of mixed.tar was not taken" in refused("bank", "import", "mixed.tar", "--bank", "new", *model)
    assert list(Path("new").iterdir()) == []


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_tar_that_was_cut_is_refused(share, bank, model):
    panda("bank", "export", "all.tar")
    data = Path("all.tar").read_bytes()
    Path("cut.tar").write_bytes(data[: int(len(data) * share)])
    assert "cut.tar" in refused("bank", "import", "cut.tar", "--bank", "new", *model)
    assert list(Path("new").iterdir()) == []


def test_a_tar_that_was_cut_between_two_prompts_is_refused(bank, ids, model):
    panda("bank", "export", "all.tar")
    with tarfile.open("all.tar") as archive:
        border = next(member.offset for member in archive if member.name.startswith(ids[2]))
    Path("cut.tar").write_bytes(Path("all.tar").read_bytes()[:border])
    assert "its end is missing" in refused("bank", "import", "cut.tar", "--bank", "new", *model)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b\x08\x00" + b"x" * 2000])
def test_what_is_no_tar_is_told(content, bank, model, tmp_path):
    (tmp_path / "no.tar").write_bytes(content)
    assert "no.tar is no" in refused("bank", "import", "no.tar", "--bank", "new", *model)


def test_a_card_that_names_a_pickle_is_refused(bank, ids, model, tmp_path):
    replace_file(bank / ids[0], "evil.pkl", b"x")
    assert "no prompt has such a file" in refused("bank", "pull", "./bank", "--bank", "new", *model)
    assert Bank("new", others={}).ids() == ids[1:], "the others are whole and are kept"


def test_a_link_in_a_shared_folder_is_not_followed(bank, ids, model):
    weights = bank / ids[0] / "head.safetensors"
    weights.rename("outside")
    weights.symlink_to(Path("outside").resolve())
    assert "not an ordinary file" in refused("bank", "pull", "./bank", "--bank", "new", *model)
    assert Bank("new", others={}).ids() == ids[1:]


def test_a_full_disk_keeps_what_was_finished(bank, ids, model, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 4096 * sum(1 + len(data) // 4096 for data in [*contents(bank / ids[0]).values(), b"README"])
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(size * 2.5)}", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        for command in (
            ["bank", "push", "*", str(disk / "place")],
            ["bank", "pull", "./bank", "--bank", disk / "b", *model],
        ):
            assert "disk is full" in refused(*command)
            place = next(path for path in disk.iterdir() if path.is_dir())
            kept = Bank(place, others={})
            assert 0 < len(kept.ids()) < 4
            assert [path.name for path in place.iterdir() if path.name not in kept.ids()] == []
            for name in kept.ids():
                kept.verify(name)
            shutil.rmtree(place)
        (disk / "filler").write_bytes(b"x" * 2 * size)
        assert "disk is full" in refused("bank", "export", disk / "all.tar")
        assert [path.name for path in disk.iterdir()] == ["filler"], "no half file is left"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
