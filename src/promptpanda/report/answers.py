"""What a report found, in sentences: how every method did against prompt tuning, and what the page leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptpanda.report.constants import constant_note
from promptpanda.report.gains import Bootstrap, Gain
from promptpanda.report.results import base_of, measured_note
from promptpanda.report.study import Contender, Group, Study
from promptpanda.report.tables import points, signed
from promptpanda.transfers.methods import PROMPT_TUNING
from promptpanda.transfers.names import AUTO

_VERDICTS = {"better": "Clearly better", "worse": "Clearly worse", "open": "Not clearly different"}


@dataclass(frozen=True)
class Comparison:
    """A contender against prompt tuning, over the targets where both have results.

    Attributes:
        gain: mean over the targets.
        better, worse: on how many targets the interval lies wholly above zero, or below.
    """

    contender: Contender
    targets: tuple[str, ...]
    gain: Gain
    better: int
    worse: int


@dataclass(frozen=True)
class Answer:
    """What a group of runs found.

    Attributes:
        of: the group, where there are several; else empty.
        headline: on `auto`, or where it was not run on the first method; chosen by no score.
        rest: on all other methods, and what must be known of the scores.
    """

    of: str
    headline: str
    rest: tuple[str, ...]


def compare(group: Group, bootstrap: Bootstrap) -> list[Comparison]:
    """Every contender that can be compared with prompt tuning, in the order of the main table."""
    found = []
    for one in group.contenders:
        base = base_of(group, one, PROMPT_TUNING.name)
        if base is None:
            continue
        targets = tuple(group.complete_targets([one, base]))
        mean = bootstrap.mean_gain(group, one, base, targets)
        if mean is not None:
            gains = [bootstrap.gain(group, one, base, target) for target in targets]
            verdicts = [gain.verdict for gain in gains if gain is not None]
            found.append(Comparison(one, targets, mean, verdicts.count("better"), verdicts.count("worse")))
    return found


def answer(group: Group, compared: Sequence[Comparison], of: str) -> Answer:
    """The sentences on one group.

    Args:
        compared: of `compare`.
        of: a name of the group, where there are several; else empty.
    """
    if not compared:
        words = "No method can be compared with prompt tuning here: one of the two has no result on any target."
        return Answer(of, words, _reservations(group))
    lead = _lead(compared)
    rest = []
    for verdict, words in _VERDICTS.items():
        named = [_brief(one, lead) for one in compared if one is not lead and one.gain.verdict == verdict]
        if named:
            rest.append(f"{words}: {'; '.join(named)}.")
    return Answer(of, _headline(lead, len(group.targets)), (*rest, *_reservations(group)))


def left_out(study: Study) -> tuple[str, ...]:
    """Which runs the page does not show, or does not count; one sentence each kind."""
    found = [f"{_runs(len(study.failed))} failed and left no result."] if study.failed else []
    if study.superseded:
        found.append(
            f"Not shown: {study.superseded} row{'s' * (study.superseded != 1)} of the store in whose place a later run "
            "stands, with other settings, data or weights."
        )
    runs = [(group, row) for group in study.groups for row in group.runs]
    overlaps = [row for group, row in runs if any(group.overlaps(row.task, source) for source in row.sources)]
    if overlaps:
        pairs = sorted({f"{row.task} from {row.source or 'several'}" for row in overlaps})
        found.append(
            f"Left out of means, since source and target share texts: {_runs(len(overlaps))}, {_listed(pairs)}."
        )
    unscored = [row for group, row in runs if group.score(row) is None]
    if unscored:
        tasks = sorted({row.task for row in unscored})
        found.append(
            f"Not shown, for want of a score of the kind that others have: {_runs(len(unscored))} on {_listed(tasks)}."
        )
    return tuple(found)


def _lead(compared: Sequence[Comparison]) -> Comparison:
    """`auto`; without it the first that a user could run as it is, which a mean over sources is not."""
    by_use = sorted(compared, key=lambda one: (one.contender.method != AUTO, one.contender.choice == "mean"))
    return by_use[0]


def _headline(one: Comparison, targets: int) -> str:
    gain, title = one.gain, one.contender.title
    many = len(one.targets) > 1
    number = f"{len(one.targets)}" if len(one.targets) == targets else f"those {len(one.targets)} of {targets}"
    where = f" on {one.targets[0]}" if not many else f", mean of {number} targets"
    if many and len(one.targets) < targets:
        where += " where both have results"
    size, interval = points(abs(gain.mean)), _interval(gain)
    if gain.low is None:
        words = f"{title} scores {signed(gain.mean)} points against prompt tuning{where}, without an interval"
    elif gain.verdict == "better":
        words = f"{title} wins {size} points{interval} over prompt tuning{where}"
    elif gain.verdict == "worse":
        words = f"{title} loses {size} points{interval} against prompt tuning{where}"
    else:
        words = f"{title} is not clearly different from prompt tuning: {signed(gain.mean)} points{interval}{where}"
    if not many or gain.low is None:
        return f"{words}."
    if one.better == one.worse == 0:
        return f"{words}; clearly better or worse on none."
    return f"{words}; clearly better on {one.better or 'none'}, worse on {one.worse or 'none'}."


def _brief(one: Comparison, lead: Comparison) -> str:
    count = len(one.targets)
    where = "" if one.targets == lead.targets else f" on {count} target{'s' * (count != 1)}"
    return f"{one.contender.title} {signed(one.gain.mean)}{_interval(one.gain)}{where}"


def _interval(gain: Gain) -> str:
    return "" if gain.low is None or gain.high is None else f" ({signed(gain.low)} to {signed(gain.high)})"


def _reservations(group: Group) -> tuple[str, ...]:
    flattered = group.conditions.protocol == "paper" and any(one.choice == "best" for one in group.contenders)
    notes = (
        constant_note(group),
        measured_note(group),
        "The best source is picked by these same scores, which flatters." if flattered else "",
    )
    return tuple(note for note in notes if note)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"
