"""Write README.md: which prompts the bank holds, how large their data was and how good they are.

panda sweep recipes/starter-bank.yaml --bank banks/minilm-l6/src/promptpanda_minilm_l6/bank
python banks/minilm-l6/describe.py
"""

from __future__ import annotations

from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card

HERE = Path(__file__).parent
FOLDER = HERE / "src" / "promptpanda_minilm_l6" / "bank"

HEAD = """# Prompts for all-MiniLM-L6-v2

This package holds {count} soft prompts for the 6-layer BERT of all-MiniLM-L6-v2, one for each public task below. A
new task can start its training from one of them. Once the package is installed, [promptpanda](../../README.md) finds
the prompts by the model's fingerprint and uses them beside your own bank. `panda bank list` shows them,
`--no-starter` leaves them out. They are read and never written to.

    pip install ./banks/minilm-l6

Each prompt was trained by prompt tuning (20 virtual tokens per layer, AdamW, learning rate .01) on the number of
rows in the table. A part of the data was kept back for validation. Test data was read once and used to choose
nothing. Scores are in hundredths of the metric.

- Some tasks (sst2, qnli, qqp and others) use only a part of a larger data set.
- The prompts hold no text. Beside the tensors there are hashes of the texts that were seen, so that no task starts
  from a prompt that has seen its own rows.
- Licences are those of the data, to the best of our knowledge.

`recipes/starter-bank.yaml` is the recipe. The trainings took {seconds:.1f} hours of one core of an AMD EPYC so far.

| task | kind | training rows | validation rows | epochs | validation | test | test rows | metric | data | licence |
|---|---|---:|---:|---:|---:|---:|---:|---|---|---|
"""


def row(card: Card) -> str:
    """A prompt's line of the table."""
    metric = card.task.metric
    test = f"{100 * card.test.scores[metric]:.1f}" if card.test is not None else "-"
    rows = f"{card.test.n_test:,}" if card.test is not None else "-"
    kind = card.task.kind.value.replace("_", " ")
    cells = (
        card.task.name, kind, f"{card.n_train:,}", f"{card.n_val:,}", str(card.options.epochs),
        f"{100 * card.score:.1f}", test, rows, metric, card.task.origin, card.task.licence,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    cards = sorted(Bank(FOLDER, others={}).cards(), key=lambda card: card.task.name)
    text = HEAD.format(count=len(cards), seconds=sum(card.seconds for card in cards) / 3600)
    (HERE / "README.md").write_text(text + "\n".join(map(row, cards)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
