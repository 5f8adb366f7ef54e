"""The model card of a prompt (README.md with the Hub's metadata), and that of a repository of several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptpanda.bank.accuracy import accuracy_interval
from promptpanda.bank.card import Card
from promptpanda.bank.seen_texts import SEEN_NAME
from promptpanda.json_input import read_json
from promptpanda.names import HeadReadout
from promptpanda.templating import environment
from promptpanda.version import __version__

MARK = "<!-- made by promptpanda -->"

_PIPELINES = {
    "single_classification": "text-classification",
    "pair_classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "multiple_choice": "multiple-choice",
    "token_classification": "token-classification",
    "extractive_qa": "question-answering",
}
_READOUTS: dict[HeadReadout, str] = {
    "pooler": "the model's own pooler",
    "cls": "the first token's hidden state",
    "mean": "the mean of the text's hidden states",
    "last": "the last token's hidden state",
    "compare": "how the means of the two texts' hidden states differ, each text read by itself",
    "token": "each token's hidden state",
}
_EMBEDDED_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def model_card(card: Card, licence: str = "unknown") -> str:
    """The README.md of a prompt."""
    from promptpanda.models import EMBEDDED

    return _rendered(
        "model_card.md.j2",
        _metadata([card], card.id, licence),
        card=card,
        base=base_model(card),
        shown_base=base_model(card) or Path(card.backbone.name).name,
        option="" if card.backbone.name == EMBEDDED else f" --model {base_model(card) or 'MODEL'}",
        readout=_READOUTS[card.readout],
        scores=_scores(card),
        has_record=SEEN_NAME in card.files,
        licence=licence,
    )


def bank_card(name: str, contents: Sequence[bytes], licence: str) -> str:
    """The README.md of a repository.

    Args:
        contents: of the card.json of all prompts; those that cannot be read are left out.
    """
    cards = [card for content in contents if (card := _read(content)) is not None]
    return _rendered("bank_card.md.j2", _metadata(cards, name.split("/")[-1], licence), name=name, cards=cards)


def base_model(card: Card) -> str | None:
    """The backbone's id on the Hub; None of a folder, whose name is nobody else's business."""
    from promptpanda.models import EMBEDDED, hub_id

    name = card.backbone.name
    if name == EMBEDDED:
        return _EMBEDDED_ON_HUB
    found = hub_id(name) or name
    return found if re.fullmatch(r"[\w.-]+/[\w.-]+", found) and not Path(found).is_dir() else None


def _metadata(cards: Sequence[Card], name: str, licence: str) -> Any:
    """As huggingface_hub writes it, so that the Hub takes it."""
    from huggingface_hub import ModelCardData

    bases = sorted({base for card in cards if (base := base_model(card)) is not None})
    datasets = sorted({card.task.hub.path for card in cards if card.task.hub is not None})
    kinds = {_PIPELINES.get(card.task.kind.value) for card in cards}
    tunings = {"prefix": "prefix-tuning", "shallow": "prompt-tuning", None: "head-only"}
    return ModelCardData(
        model_name=name,
        base_model=bases[0] if len(bases) == 1 else bases or None,
        base_model_relation="adapter" if bases else None,
        library_name="promptpanda",
        license=licence,
        datasets=datasets or None,
        metrics=sorted({metric for card in cards for metric in card.task.metrics}) or None,
        pipeline_tag=kinds.pop() if len(kinds) == 1 else None,
        tags=[
            "promptpanda",
            "soft-prompt",
            *sorted({tunings[card.prompt_kind] for card in cards}),
            *(["peft"] if any(card.peft != "unsupported" for card in cards) else []),
        ],
        eval_results=[result for card in cards for result in _results(card)] or None,
    )


def _results(card: Card) -> list[Any]:
    """The scores, each with what it was measured on: test data if there were any, else the validation part."""
    from huggingface_hub import EvalResult

    spec, tested = card.task, card.test is not None
    hub = spec.hub
    return [
        EvalResult(
            task_type=_PIPELINES.get(spec.kind.value, "text-classification"),
            task_name=_plain(spec.title or spec.name),
            dataset_type=spec.name if hub is None else hub.path,
            dataset_name=_plain(spec.title or spec.name),
            dataset_config=None if hub is None else hub.config,
            dataset_revision=None if hub is None else hub.revision,
            dataset_split="test" if tested else "validation",
            metric_type=metric,
            metric_name=f"{metric} ({'test' if tested else 'validation'} data)",
            metric_value=value,
            metric_args={
                "protocol": card.protocol,
                "rows": card.test.n_test if card.test is not None else card.n_val,
                "n_train": card.n_train,
                "seed": card.seed,
            },
        )
        for metric, value in (card.test.scores if card.test is not None else card.validation).items()
        if metric != "loss"
    ]


def _scores(card: Card) -> list[dict[str, Any]]:
    """The rows of the card's table."""
    parts = [("validation", card.n_val, card.validation)]
    if card.test is not None:
        parts.insert(0, ("test", card.test.n_test, card.test.scores))
    return [
        {
            "part": part,
            "rows": rows,
            "metric": metric,
            "value": value,
            "interval": accuracy_interval(metric, value, rows),
        }
        for part, rows, scores in parts
        for metric, value in scores.items()
        if metric != "loss"
    ]


def _read(content: bytes) -> Card | None:
    try:
        return Card.model_validate(read_json(content.decode("utf-8"), "A card"))
    except ValueError:
        return None


def _rendered(template: str, metadata: Any, **values: Any) -> str:
    made = environment("promptpanda.sharing", escape=False, keep_trailing_newline=True)
    made.filters["text"] = _escaped
    made.filters["plain"] = _plain
    return made.get_template(template).render(metadata=metadata.to_yaml(), mark=MARK, version=__version__, **values)


def _plain(value: object) -> str:
    """In one line, without what steers terminals."""
    return _CONTROL.sub(" ", str(value)).strip()


def _escaped(value: object) -> str:
    """Words of others inside Markdown: shown as they are."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _plain(value))
