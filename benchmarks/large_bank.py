"""What a large bank costs: its index, adding, listing, searching, ranking and verifying, by the number of prompts.

    python benchmarks/large_bank.py --folder large-bank --data-dir DATA --sizes 100,1000,10000

Makes a bank of real prompts (those of the installed starter bank) with noise, and lets it grow. Every folder has a card
and a record of seen texts of its own; the files with tensors are hard links to a pool of 500 prompts with noise, which
saves disk: 100,000 folders take 2 GB. The prompts that a ranking runs the model under get weights of their own before
it is measured, since equal ones would share a pass. `auto` is a transfer with `--effort quick`, one epoch. Every
command is run as a user runs it, in a process of its own; of its time the clock's and the processor's are told, and the
most memory that it held (Linux). `save` writes a prompt into the bank, `index one` brings it into the index. A table in
Markdown goes to stdout; an exponent of 0 means that size does not matter, 1 that twice as many prompts take twice as
long: of the processor's time, between the two largest sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_folder
from promptpanda.bank.index import FOLDER, Index, stamp
from promptpanda.bank.index_row import row_of
from promptpanda.bank.installed import installed_banks
from promptpanda.bank.layout import CARD_NAME, SEEN_NAME, SIGNATURE_NAME
from promptpanda.bank.peft_format import WEIGHTS_NAME
from promptpanda.bank.seen_texts import VERSION

POOL = 500  # prompts with noise
TEXTS = 500  # in a record, on average
NOISE = 0.1  # in standard deviations of a tensor
TOPICS = (
    *("phones", "books", "hotels", "films", "shoes", "banks", "flights", "games", "schools", "cars", "gardens"),
    *("medicines", "contracts", "recipes", "songs", "courts", "farms", "ships", "museums", "elections", "insurance"),
)
SEARCHES = ("customer reviews, two classes", "premise hypothesis hotels", "question type")

_PANDA = "from promptpanda.cli.main import main; main()"
# The most memory that a process held, in kB (Linux); what wait4 tells counts the parent's at the fork.
_LAST = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1], flush=True)"


class Cost(NamedTuple):
    """Of one command: seconds by the clock, seconds of processors, MB."""

    clock: float
    processor: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="new or of an earlier run; it is left there")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--target", default="cr")
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--verify-up-to", type=int, default=1000, help="verifying reads every byte")
    arguments = parser.parse_args()
    bank = arguments.folder / "bank"
    pool = Pool(arguments.folder / "pool")
    rows: dict[str, dict[int, str]] = {}
    numbers: dict[str, dict[int, float]] = {}

    def tell(what: str, size: int, value: Cost | float) -> None:
        cost = value if isinstance(value, Cost) else Cost(value, value, 0.0)
        numbers.setdefault(what, {})[size] = cost.processor
        beside = f" ({cost.processor:.2f}, {cost.memory:.0f} MB)" if isinstance(value, Cost) else ""
        rows.setdefault(what, {})[size] = f"{cost.clock:.3f}{beside}"
        print(json.dumps({"what": what, "prompts": size, **cost._asdict()}), file=sys.stderr, flush=True)

    sizes = [int(size) for size in arguments.sizes.split(",")]
    for size in sizes:
        began = time.perf_counter()
        pool.fill(bank, size)
        print(f"made {size} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        measure(bank, size, arguments, tell)
    print("| seconds (of processors, memory) |", " | ".join(f"{size:,}" for size in sizes), "| exponent |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for what, row in rows.items():
        print(f"| {what} |", " | ".join(row.get(size, "-") for size in sizes), f"| {exponent(numbers[what])} |")


def measure(
    bank: Path, size: int, arguments: argparse.Namespace, tell: Callable[[str, int, Cost | float], None]
) -> None:
    """All that is told of one size."""
    own = ["--bank", str(bank), "--no-starter"]
    shutil.rmtree(bank / FOLDER, ignore_errors=True)
    time.sleep(3)  # cards that were written just now are read again
    tell("index, anew", size, run("bank", "list", *own))
    tell("list", size, best(lambda: run("bank", "list", *own)))
    for query in SEARCHES[:1]:
        tell("search", size, best(lambda query=query: run("bank", "search", query, *own)))
    tell("list --json", size, best(lambda: run("bank", "list", "--json", *own)))
    tell("save", size, saving(bank))
    tell("index one", size, indexing(bank))
    target = (arguments.target, "--data-dir", str(arguments.data_dir), "--train-examples", "64", *own)
    for number, name in enumerate(ranked(*target)):
        tell_apart(bank / name, number)
    tell("rank", size, run("rank", *target))
    tell("auto", size, transferring(Bank(bank, others={}), target))
    first = min(Bank(bank, others={}).ids())
    tell("verify one", size, run("bank", "verify", first, *own))
    if size <= arguments.verify_up_to:
        tell("verify all", size, run("bank", "verify", *own))


def run(*arguments: str) -> Cost:
    """A command of panda in a process of its own."""
    code = f"import atexit; atexit.register(lambda: {_LAST}); {_PANDA}"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    written = process.stdout.read() if process.stdout is not None else b""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"panda {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, int(written.split()[-1]) / 1e3)


def ranked(*target: str) -> list[str]:
    """Ids of the prompts that a ranking runs the model under."""
    command = [sys.executable, "-c", _PANDA, "rank", *target, "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return [one["prompt"] for one in found["ranking"]]


def tell_apart(folder: Path, number: int) -> None:
    """Give a prompt weights of its own, if it shares them."""
    path = folder / WEIGHTS_NAME
    if path.stat().st_nlink == 1:
        return
    content = _noisy(path, np.random.default_rng([POOL, number]))
    path.unlink()
    path.write_bytes(content)
    card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    card["files"][WEIGHTS_NAME] = sha256(content).hexdigest()
    (folder / CARD_NAME).write_text(json.dumps(card, indent=2), encoding="utf-8")


def transferring(bank: Bank, target: Sequence[str]) -> Cost:
    """A transfer with a source that is chosen; what it trained is removed again."""
    before = set(bank.ids())
    cost = run("transfer", *target, "--effort", "quick", "--epochs", "1", "--test-examples", "100")
    for name in set(bank.ids()) - before:
        bank.remove(name)
    return cost


def best(measured: Callable[[], Cost], times: int = 3) -> Cost:
    """The quickest of several: what else the machine does only adds."""
    return min((measured() for _ in range(times)), key=lambda cost: cost.processor)


def saving(bank: Path) -> float:
    """Seconds to write one prompt, the best of five; they are removed again."""
    backbone = Backbone.load(None)
    trained = read_folder(next(iter(starter())), backbone)
    store, times = Bank(bank, others={}), []
    for number in range(5):
        one = replace(trained, card=trained.card.model_copy(update={"id": f"added-s{number}-00000000"}), path=None)
        began = time.perf_counter()
        store.save(one, backbone)
        times.append(time.perf_counter() - began)
        store.remove(one.card.id)
    return min(times)


def indexing(bank: Path) -> float:
    """Seconds to read one prompt into the index, the best of five."""
    times = []
    with Index(bank) as index:
        for name in Bank(bank, others={}).ids()[:5]:
            began = time.perf_counter()
            index._file.replace([row_of(bank / name, stamp(str(bank / name), time.time_ns()))])
            times.append(time.perf_counter() - began)
    return min(times)


def exponent(by_size: dict[int, float]) -> str:
    """Of the power law through the two largest sizes."""
    if len(by_size) < 2:
        return "-"
    (small, less), (large, more) = sorted(by_size.items())[-2:]
    return f"{np.log(more / less) / np.log(large / small):.2f}"


def starter() -> Sequence[Path]:
    """The prompts of the installed banks."""
    folders = [folder / name for folder in installed_banks()[0].values() for name in Bank(folder, others={}).ids()]
    if not folders:
        raise SystemExit("Install the starter bank first (make demo).")
    return folders


class Pool:
    """Real prompts with noise, which folders of a bank link to."""

    def __init__(self, folder: Path) -> None:
        self._sources = starter()
        self._cards = [json.loads((source / CARD_NAME).read_text(encoding="utf-8")) for source in self._sources]
        self._members = [folder / str(number) for number in range(POOL)]
        self._sums: list[dict[str, str]] = []
        for number, member in enumerate(self._members):
            if not member.exists():
                self._make(number, member)
            self._sums.append({path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(member.iterdir())})

    def _make(self, number: int, member: Path) -> None:
        source, draws = self._sources[number % len(self._sources)], np.random.default_rng(number)
        member.mkdir(parents=True)
        for path in source.iterdir():
            if path.name in (CARD_NAME, SEEN_NAME):
                continue
            if path.name not in (WEIGHTS_NAME, SIGNATURE_NAME):
                shutil.copyfile(path, member / path.name)
                continue
            (member / path.name).write_bytes(_noisy(path, draws))

    def fill(self, bank: Path, size: int) -> None:
        """Let a bank grow."""
        bank.mkdir(exist_ok=True)
        for number in range(len(Bank(bank, others={}).ids()), size):
            self._add(bank, number)

    def _add(self, bank: Path, number: int) -> None:
        draws = np.random.default_rng(number)
        card, which = dict(self._cards[number % len(self._cards)]), number % POOL // len(self._cards) * len(self._cards)
        which = min(which + number % len(self._cards), POOL - POOL % len(self._cards) - 1)
        topic = TOPICS[int(draws.integers(len(TOPICS)))]
        task = card["task"] | {"name": f"{topic}_{card['task']['name']}_{number % 997}", "benchmark": None}
        task["title"] = f"{topic.title()}: {card['task']['title']}"
        key = sha256(str(number).encode()).hexdigest()
        validation = {name: min(max(value + draws.normal(0, 0.03), 0), 1) for name, value in card["validation"].items()}
        count = max(4, int(draws.lognormal(np.log(TEXTS) - 0.5, 1)))
        hashes = np.unique(draws.integers(0, 2**64, count, dtype=np.uint64))
        record = save({"hashes": hashes}, {"version": VERSION})
        folder = bank / f"{task['name']}-s{number % 5}-{key[:8]}"
        folder.mkdir()
        (folder / SEEN_NAME).write_bytes(record)
        for name in self._sums[which]:
            os.link(self._members[which] / name, folder / name)
        files = self._sums[which] | {SEEN_NAME: sha256(record).hexdigest()}
        card |= {"id": folder.name, "run": key, "series": key[::-1], "seed": number % 5, "task": task, "files": files}
        card |= {"validation": validation}
        (folder / CARD_NAME).write_text(json.dumps(card, indent=2), encoding="utf-8")


def _noisy(path: Path, draws: np.random.Generator) -> bytes:
    """A file of tensors with noise."""
    with safe_open(path, framework="numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    noisy = {
        key: (value + NOISE * value.std() * draws.standard_normal(value.shape)).astype(value.dtype)
        if value.dtype.kind == "f"
        else value
        for key, value in tensors.items()
    }
    return save(noisy, metadata)


if __name__ == "__main__":
    main()
