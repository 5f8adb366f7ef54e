"""Entity tags: one scheme (BIO) out of several, the spans they mean, and the scores of spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from promptpanda.errors import PandaError

Scheme = Literal["bio", "bioes", "iob1"]
Span = tuple[int, int, str]

_BIO = {"B": "B", "I": "I"}
# BILOU writes L and U for the E and S of BIOES.
_TO_BIO = {"bio": _BIO, "iob1": _BIO, "bioes": _BIO | {"E": "I", "L": "I", "S": "B", "U": "B"}}


def tag_names(types: Sequence[str]) -> tuple[str, ...]:
    """("O", "B-a", "I-a", "B-b", ...) in the order of `types`: the integers of the hub's CoNLL-2003 and its like."""
    return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))


def to_bio(tags: Sequence[Any], where: str, scheme: Scheme | None = None) -> tuple[str, ...]:
    """One sentence in BIO (IOB2), where B- begins every span.

    Args:
        tags: one a word.
        where: names the sentence in errors.
        scheme: None reads BIO, BIOES and BILOU, which cannot be confused; IOB1, where I- may begin a span, is to be
            named. In no scheme does a span need an end tag: "B-x O" is a span of one word.

    Raises:
        PandaError: a tag is no string, has an unknown prefix or no type, or continues a span that is not there.
    """
    prefixes = _TO_BIO[scheme or "bioes"]
    bio: list[str] = []
    open_type = None  # of the span that the next word may continue
    for number, tag in enumerate(tags, 1):
        prefix, name = _split(tag, prefixes, f"Word {number} of {where}")
        written = prefixes.get(prefix, "O")
        if written == "I" and name != open_type:
            if scheme != "iob1":
                raise PandaError(
                    f"Word {number} of {where} has the tag '{tag}' with no 'B-{name}' or 'I-{name}' before it; "
                    f"let B- begin each span, or, as original CoNLL-2003 files are IOB1, read such files with "
                    f"`scheme: iob1` in the spec."
                )
            written = "B"
        bio.append("O" if written == "O" else f"{written}-{name}")
        open_type = name if prefix in ("B", "I") else None
    return tuple(bio)


def find_scheme(sentences: Sequence[Sequence[str]]) -> Literal["iob1", "bioes", "io", "plain"] | None:
    """The scheme of tags that are not BIO: IOB1, BIOES (or BILOU), and tags without prefixes.

    Returns:
        `io` for tags without prefixes beside O, where equal neighbours are one span; `plain` where every word has such
        a tag (parts of speech). None for BIO, and for what is of no scheme.
    """
    seen = {tag for tags in sentences for tag in tags}
    entities = seen - {"O"}
    prefixed = {tag for tag in entities if tag[1:2] == "-" and tag[0] in "BIESLU" and len(tag) > 2}
    if not entities or (prefixed and prefixed != entities):
        return None
    if not prefixed:
        return "io" if "O" in seen else "plain"
    prefixes = {tag[0] for tag in prefixed}
    if prefixes & set("ESLU"):
        return "bioes"
    begins = follows = False  # whether an I- begins a span, and whether a B- follows anything but a span of its type
    for tags in sentences:
        for before, tag in zip(("O", *tags), tags, strict=False):
            same = before[1:] == tag[1:] and before != "O"
            begins |= tag[0] == "I" and not same
            follows |= tag[0] == "B" and not same
    return "iob1" if begins and not follows else None


def as_bio(tags: Sequence[str], scheme: Literal["io", "plain"]) -> list[str]:
    """Tags without prefixes as BIO: every word a span of its own (`plain`), or equal neighbours one span (`io`)."""
    return [
        "O" if tag == "O" else f"{'I' if scheme == 'io' and tag == before else 'B'}-{tag}"
        for before, tag in zip(("O", *tags), tags, strict=False)
    ]


def spans_of(tags: Sequence[str]) -> list[Span]:
    """(start, end, type) of each span of BIO tags, end exclusive, in order.

    Lenient as conlleval, since predicted tags may be inconsistent: an I- that continues no span of its type begins one.
    """
    spans: list[Span] = []
    for at, tag in enumerate(tags):
        prefix, _, name = tag.partition("-")
        if prefix == "O":
            continue
        if prefix == "I" and spans and spans[-1][1:] == (at, name):
            spans[-1] = (spans[-1][0], at + 1, name)
        else:
            spans.append((at, at + 1, name))
    return spans


def span_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 of spans; one counts if start, end and type are all right.

    Args:
        gold, predicted: BIO tags of each sentence, in the same order.

    Returns:
        span_precision, span_recall and span_f1 as fractions, 0.0 where undefined (nothing predicted, no spans at all).
    """
    count: Counter[str] = Counter()
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        gold_spans, predicted_spans = set(spans_of(gold_tags)), set(spans_of(predicted_tags))
        count["right"] += len(gold_spans & predicted_spans)
        count["gold"] += len(gold_spans)
        count["predicted"] += len(predicted_spans)
    return {
        "span_precision": count["right"] / max(count["predicted"], 1),
        "span_recall": count["right"] / max(count["gold"], 1),
        "span_f1": 2 * count["right"] / max(count["gold"] + count["predicted"], 1),
    }


def _split(tag: Any, prefixes: dict[str, str], where: str) -> tuple[str, str]:
    if not isinstance(tag, str):
        raise PandaError(
            f"{where} has {tag!r} ({type(tag).__name__}) for a tag; expected a string such as 'B-PER' or 'O'."
        )
    if tag == "O":
        return "O", ""
    prefix, _, name = tag.partition("-")
    if prefix not in prefixes:
        known = ", ".join(f"{name}-" for name in prefixes)
        raise PandaError(
            f"{where} has the tag '{tag}'; expected 'O' or a type after {known}, so rename it, or check the scheme in "
            "the spec."
        )
    if not name.strip():
        raise PandaError(f"{where} has the tag '{tag}' without a type; expected one such as '{prefix}-PER'.")
    return prefix, name
