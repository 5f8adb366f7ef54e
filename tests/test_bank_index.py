"""Large banks: an index that is never the truth, whatever happens to it or behind its back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from banks import read_card, replace_file, write_card
from safetensors.numpy import save
from shared_banks import panda, refused

from promptpanda.bank import catalogue, index
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.catalogue import opened
from promptpanda.bank.entry import Entry
from promptpanda.bank.index import FOLDER, Index
from promptpanda.bank.layout import SEEN_NAME

pytestmark = pytest.mark.usefixtures("one_thread")

COUNT = 60
KINDS = ("product reviews: good or bad?", "Questions: of which type?", "Café menus: dear or cheap?")


def grown(bank: Path, source: Path, start: int = 0, count: int = COUNT) -> list[str]:
    """Copies of a prompt under ids, tasks, titles and records of texts of their own; returns the ids."""
    made = []
    for number in range(start, start + count):
        name = f"task{number % 7}-s{number}-{number:08x}"
        shutil.copytree(source, bank / name)
        card = read_card(bank / name)
        task = card["task"] | {"name": f"task{number % 7}", "title": KINDS[number % 3]}
        card |= {"id": name, "seed": number, "series": f"series{number % 7}", "task": task}
        card["validation"] = card["validation"] | {"accuracy": (number % 50) / 50}
        write_card(bank / name, card)
        hashes = np.sort(np.random.default_rng(number).integers(0, 2**64, 20, dtype=np.uint64))
        replace_file(bank / name, SEEN_NAME, save({"hashes": hashes}, {"version": "1"}))
        made.append(name)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files that were written just now count as settled, as those of yesterday do."""
    monkeypatch.setattr(index, "_SETTLED", 0)


@pytest.fixture
def bank(tmp_path, four_prompts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grown(tmp_path / "bank", next(four_prompts.glob("books-s0-*")))
    return tmp_path / "bank"


def place(bank: Path) -> Path:
    (found,) = (bank / FOLDER).glob("*.sqlite3")
    return found


def told(bank: Path) -> dict[str, Entry]:
    """What the index tells."""
    with Index(bank) as found:
        return {entry.id: entry for entry in found.entries()}


def truth(bank: Path) -> dict[str, Entry]:
    return {card.id: Entry.of(card) for card in Bank(bank, others={}).readable_cards()[0]}


def reads(monkeypatch) -> list[str]:
    """Names of all folders that are read from now on."""
    found: list[str] = []
    original = index.row_of
    monkeypatch.setattr(index, "row_of", lambda folder, stamp: (found.append(folder.name), original(folder, stamp))[1])
    return found


def test_it_tells_what_the_cards_tell(bank):
    assert len(truth(bank)) == COUNT
    assert told(bank) == truth(bank)
    assert list(told(bank)) == Bank(bank, others={}).ids()


def test_a_second_look_reads_nothing_and_a_new_prompt_alone(bank, four_prompts, monkeypatch):
    told(bank)
    read = reads(monkeypatch)
    told(bank)
    assert read == []
    new = grown(bank, next(four_prompts.glob("books-s0-*")), COUNT, 1)
    assert told(bank) == truth(bank)
    assert read == new


def test_what_changes_behind_its_back_is_noticed(bank, monkeypatch):
    told(bank)
    first, second, third, fourth = sorted(truth(bank))[:4]
    shutil.rmtree(bank / first)
    card = read_card(bank / second)
    write_card(bank / second, card | {"method": "pot"})  # in place: the folder's own times stay
    content = (bank / third / "card.json").read_text(encoding="utf-8")
    times = os.stat(bank / third / "card.json")
    changed = content.replace('"seed": ', '"seed":1')  # of the same length
    assert len(changed) == len(content)
    (bank / third / "card.json").write_text(changed, encoding="utf-8")
    os.utime(bank / third / "card.json", ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying programs do
    (bank / fourth).rename(bank / "elsewhere")
    read = reads(monkeypatch)
    assert told(bank) == truth(bank)
    assert (sorted(read), told(bank)[second].method) == ([second, third], "pot")
    assert first not in told(bank)
    assert fourth not in told(bank)


def test_a_card_that_changed_as_it_was_read_is_read_again(bank, monkeypatch):
    """Two writes within one tick of the file system's clock leave the same times."""
    monkeypatch.setattr(index, "_SETTLED", 10**12)
    told(bank)
    read = reads(monkeypatch)
    told(bank)
    assert len(read) == COUNT


def test_damaged_cards_are_told_until_they_are_mended(bank):
    first = min(truth(bank))
    told(bank)
    content = (bank / first / "card.json").read_bytes()
    (bank / first / "card.json").write_bytes(content[:100])
    for _ in range(2):
        with Index(bank) as found:
            assert len(found) == COUNT - 1
            assert first in found.problems[first]
    (bank / first / "card.json").write_bytes(content)
    assert told(bank) == truth(bank)


@pytest.mark.parametrize("damage", ["cut", "text", "zeros", "empty", "future", "foreign", "folder"])
def test_a_damaged_file_is_made_anew(bank, damage):
    expected = truth(bank)
    told(bank)
    path = place(bank)
    content = path.read_bytes()
    if damage == "future":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE prompts (a)")
        connection.close()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        half = len(content) // 2
        cut, zeros = content[:half], content[:4096] + bytes(half) + content[4096 + half :]
        path.write_bytes({"cut": cut, "text": b"no database" * 1000, "zeros": zeros, "empty": b""}[damage])
    assert told(bank) == expected
    assert told(bank) == expected


def test_no_flipped_bit_is_believed(bank):
    """A name that is changed within the file is valid SQLite; the row's checksum tells."""
    expected = truth(bank)
    told(bank)
    with sqlite3.connect(place(bank)) as connection:
        connection.execute("UPDATE prompts SET facts = replace(facts, 'prompt_tuning', 'prompt_tuninh')")
    connection.close()
    assert told(bank) == expected
    with sqlite3.connect(place(bank)) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE number = 3")
        connection.execute("UPDATE records SET hashes = zeroblob(length(hashes))")
    connection.close()
    with Index(bank) as found:
        numbers = found.vectors(expected)
        assert len(numbers) == COUNT
        assert all(np.abs(np.frombuffer(vector, np.float16)).max() > 0 for vector in numbers.values())
        assert len(found.possible_records(np.zeros(1, np.uint64))[1]) == COUNT


_LOOK = """
import os, sys
from pathlib import Path
import safetensors.numpy
from promptpanda.bank import card, index
index._SETTLED = 0
if sys.argv[2:]:  # by now all that is imported is read
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for _ in range(3):
    with index.Index(Path(sys.argv[1])) as found:
        print(len(found.entries()), found.place)
"""


def looking(bank: Path, *nobody: str, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", _LOOK, str(bank), *nobody]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_several_processes_may_make_it_at_once_and_one_may_be_killed(bank):
    processes = [looking(bank) for _ in range(4)]
    processes[0].kill()
    for process in processes[1:]:
        out, errors = process.communicate(timeout=120)
        assert [line.split()[0] for line in out.splitlines()] == [str(COUNT)] * 3, errors
    processes[0].communicate()
    assert told(bank) == truth(bank)


def test_threads_throw_it_away_under_one_another(bank):
    """Each finds it damaged by the others again and again; nobody is told anything wrong."""
    expected, wrong = truth(bank), []
    told(bank)
    path = place(bank)

    def look() -> None:
        for _ in range(4):
            try:
                if told(bank) != expected:
                    wrong.append("another answer")
            except Exception as error:
                wrong.append(repr(error))
            path.write_bytes(b"no database")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert told(bank) == expected


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_bank_that_cannot_be_written_has_it_in_the_cache_or_in_memory(tmp_path, bank):
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o777)
    for home, where in ((cache, str(cache)), (Path("/proc/none"), "None")):
        process = looking(bank, "nobody", env=os.environ | {"XDG_CACHE_HOME": str(home)})
        out, errors = process.communicate(timeout=120)
        assert out.splitlines()[-1].startswith(f"{COUNT} {where}"), errors
    assert not (bank / FOLDER).exists()


def test_installed_banks_are_never_written_to(bank, cache):
    with opened(Bank(bank.parent / "own", others={"theirs": Bank(bank, others={})})) as found:
        assert len(found.entries) == COUNT
        assert found.shelves[1].index.place.is_relative_to(cache)
    assert not (bank / FOLDER).exists()


def test_beside_a_large_bank_small_installed_ones_are_indexed_too(bank, four_prompts, cache, tmp_path):
    shutil.copytree(four_prompts, tmp_path / "small")
    small = Bank(tmp_path / "small", others={})
    for own, others in ((bank, {"small": small}), (small.folder, {"large": Bank(bank, others={})})):
        with opened(Bank(own, others=others)) as found:
            assert {entry.id for entry in found.entries} == {*truth(bank), *small.ids()}
            assert found.shelves[1].index.place.is_relative_to(cache)
            assert (found.shelves[0].index is None) == (own == small.folder)
    assert not (small.folder / FOLDER).exists()


def test_own_prompts_go_before_those_of_installed_banks(bank, tmp_path):
    first = min(truth(bank))
    shutil.copytree(bank / first, tmp_path / "own" / first)
    card = read_card(tmp_path / "own" / first)
    write_card(tmp_path / "own" / first, card | {"method": "pot"})
    with opened(Bank(tmp_path / "own", others={"theirs": Bank(bank, others={})})) as found:
        assert (len(found.entries), found.entries[0].method) == (COUNT, "pot")
        assert [entry.method for entry, _ in found.search("task0", 60) if entry.id == first] == ["pot"]
        assert found.first(1)[0][0].method == "pot"
        assert len(found.first(COUNT)) == COUNT


def test_a_small_bank_needs_none(four_prompts, tmp_path):
    small = tmp_path / "small"
    shutil.copytree(four_prompts, small)
    panda("bank", "list", "--bank", small)
    panda("bank", "search", "books", "--bank", small)
    assert not (small / FOLDER).exists()


def test_names_seeds_and_lists_mean_the_same_with_it_and_without(bank, monkeypatch):
    store = Bank(bank, others={})

    def answers() -> list[object]:
        card = Card.read(store.resolve("task3"))
        siblings = store.siblings(card, (3, 10, 999))
        rows = json.loads(panda("bank", "list", "--json", "--no-starter"))["prompts"]
        return [card.id, siblings, rows, panda("bank", "list", "--no-starter", "--limit", 5)]

    with_index = answers()
    assert (bank / FOLDER).exists()
    shutil.rmtree(bank / FOLDER)
    monkeypatch.setattr(catalogue, "SMALL", COUNT)
    assert answers() == with_index
    assert not (bank / FOLDER).exists()
    assert with_index[0] == max(truth(bank).values(), key=lambda one: (one.task == "task3", one.validation)).id


def test_a_long_list_is_cut_and_says_so(bank):
    from typer.testing import CliRunner

    from promptpanda.cli.main import app

    result = CliRunner().invoke(app, ["bank", "list", "--no-starter", "--limit", "7"])
    assert "The first 7 of 60" in result.stderr
    assert sum(" prompt_tuning " in line for line in result.stdout.splitlines()) == 7
    assert len(json.loads(panda("bank", "list", "--no-starter", "--json"))["prompts"]) == COUNT
    assert len(json.loads(panda("bank", "list", "--no-starter", "--json", "--limit", 3))["prompts"]) == 3


def found_by(*words: str) -> list[str]:
    rows = json.loads(panda("bank", "search", *words, "--no-starter", "--limit", 60, "--json"))["prompts"]
    return [row["title"] for row in rows]


def test_words_find_prompts_whatever_their_endings_and_all_words_before_some(bank):
    third = COUNT // 3
    assert found_by("product review, two classes")[:third] == [KINDS[0]] * third
    assert len(found_by("product review, two classes")) == COUNT, "all have two classes"
    assert found_by("REVIEWS") == [KINDS[0]] * third
    assert found_by("question") == [KINDS[1]] * third
    assert found_by("cafe") == [KINDS[2]] * third
    assert len(found_by("single", "sentence", "accuracy")) == COUNT
    assert found_by("task1")[:1] != []
    assert found_by("regression") == []
    assert "no word" in refused("bank", "search", ", the")
    assert found_by('"good" OR (bad NEAR x) * ^') != [], "signs of FTS5 are no syntax here"


def test_half_a_hash_suspects_and_never_misses(bank):
    hashes = np.random.default_rng(5).integers(0, 2**64, 20, dtype=np.uint64)  # what `grown` gave to number 5
    with Index(bank) as found:
        suspects, known = found.possible_records(np.append(hashes[:1], np.uint64(12345)))
        one = sha256((bank / f"task5-s5-{5:08x}" / SEEN_NAME).read_bytes()).hexdigest()
        assert (suspects, len(known)) == ({one}, COUNT)
        assert found.possible_records(np.empty(0, np.uint64))[0] == set()
        assert found.possible_records(hashes[:1] ^ np.uint64(1))[0] == {one}, "the lower half is not kept"


def test_a_record_that_cannot_be_read_is_a_suspect_until_it_is_mended(bank):
    name = f"task5-s5-{5:08x}"
    content = (bank / name / SEEN_NAME).read_bytes()
    (bank / name / SEEN_NAME).write_bytes(content[:-1])
    with opened(Bank(bank, others={})) as found:
        assert found.possible_records(found.entries, np.empty(0, np.uint64)) == {name}
    (bank / name / SEEN_NAME).write_bytes(content)
    with opened(Bank(bank, others={})) as found:
        assert found.possible_records(found.entries, np.empty(0, np.uint64)) == set()


def test_listing_imports_no_torch(bank):
    code = "import sys; from promptpanda.cli.main import app; app(standalone_mode=False); print('torch' in sys.modules)"
    for arguments in (("list",), ("list",), ("search", "reviews")):
        command = [sys.executable, "-c", code, "bank", *arguments]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1] == "False"
