"""How much a source gains by more of its own data: PoT on two targets of each source, by the source's size.

    python studies/source_size.py --data-dir DATA --whole STARTER --bank BANK --seeds 0,1,2

Every source is trained on 500, 1,500 and 5,000 rows of its train split, with the default options; the prompt that a
bank such as the starter bank has of it stands for all rows. Every target has 64 labelled rows, and is scored on at most
1,000 test rows, which choose nothing. Prompts are kept in the bank, so that the same command goes on where it was
stopped. One JSON line a target and size; then the table, in points of each target's metric: means over the seeds, and
standard deviations between them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from promptpanda import Backbone, Bank, load_task, train, transfer
from promptpanda.quiet import quiet_libraries

TARGETS = {
    "sst2": ("cr", "mpqa"),
    "mnli": ("snli", "rte"),
    "conll03": ("conll04", "wikigold"),
    "qqp": ("mrpc", "stsb"),
}
SIZES = (500, 1500, 5000, None)
LABELS, TEST_ROWS = 64, 1000

Scores = dict[tuple[str, str], tuple[float, ...]]  # by target, and by the source's size or `no transfer`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True, help="where prompts are kept")
    parser.add_argument("--whole", type=Path, required=True, help="bank with the prompts that saw all rows")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sources", default=",".join(TARGETS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    backbone, bank, whole = Backbone.load(), Bank(given.bank, others={}), Bank(given.whole, others={})
    seeds = tuple(map(int, given.seeds.split(",")))
    scores: Scores = {}
    for name in given.sources.split(","):
        task = load_task(name, data_dir=given.data_dir)
        targets = [load_task(target, data_dir=given.data_dir) for target in TARGETS[name]]
        for size in SIZES:
            source = train(task, backbone, bank=bank, train_examples=size) if size else whole.load(name, backbone)
            for target in targets:
                result = transfer(
                    target,
                    source,
                    backbone,
                    bank=bank,
                    methods=("prompt_tuning", "pot"),
                    train_examples=LABELS,
                    test_examples=TEST_ROWS,
                    seeds=seeds,
                )
                for method, key in (("pot", str(size or "all")), ("prompt_tuning", "no transfer")):
                    scores[target.name, key] = result.methods[method].scores or ()
                line = {
                    "source": name,
                    "examples": source.card.n_train + source.card.n_val,
                    "own": round(source.card.score, 4),
                    "target": target.name,
                    "pot": [round(score, 4) for score in scores[target.name, str(size or "all")]],
                    "prompt_tuning": [round(score, 4) for score in scores[target.name, "no transfer"]],
                }
                print(json.dumps(line), flush=True)
    print(table(scores))


def table(scores: Scores) -> str:
    """As Markdown."""
    columns = ["no transfer", *(str(size or "all") for size in SIZES)]
    lines = ["| source | target | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * len(columns)]
    for source, targets in TARGETS.items():
        for target in targets:
            if (target, "all") in scores:
                cells = [_cell(scores[target, column]) for column in columns]
                lines.append(f"| {source} | {target} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(scores: tuple[float, ...]) -> str:
    spread = f" ({100 * statistics.stdev(scores):.1f})" if len(scores) > 1 else ""
    return f"{100 * statistics.fmean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
