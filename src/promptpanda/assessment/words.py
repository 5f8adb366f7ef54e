"""What was found, in sentences for the terminal and the page."""

from __future__ import annotations

import unicodedata

from promptpanda.assessment.assess import Assessment, Calibration

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reorder what stands around
_SURE = 0.05  # p-value below which McNemar's test is told as a difference


def judged_calibration(calibration: Calibration) -> str:
    """Whether the confidence is reliable, before and after scaling."""
    text = (
        f"Calibration: the confidence of {calibration.answers} {calibration.answers_are} is off by "
        f"{calibration.ece.value:.3f} on average (a perfectly calibrated model: {calibration.chance:.3f} by chance)"
    )
    if calibration.scaled is None:
        return f"{text}; there is no temperature to scale it by, since no held-out validation data is available."
    better = calibration.scaled.value < calibration.ece.value
    return (
        f"{text}; with temperature {calibration.temperature:.2f}, fitted on validation data, by "
        f"{calibration.scaled.value:.3f}: {'panda predict --calibrated gives these' if better else 'no better'}."
    )


def compared(found: Assessment) -> str:
    """Which of two prompts is better, and whether that is clear."""
    one = found.comparison
    assert one is not None
    low, high = one.interval
    scores = f"{found.metric} {found.score.value:.3f} against {one.score:.3f} of {one.other}"
    if low is None or high is None:
        return f"Compared: {scores}; without independent examples it is unknown which is better."
    verdict = {
        "better": f"{found.prompt} is better",
        "worse": f"{one.other} is better",
        "open": "these examples do not show which is better",
    }[one.verdict]
    text = f"Compared: {scores}: {verdict}; difference {one.difference:+.3f} (95 % {low:+.3f} to {high:+.3f})"
    if one.mcnemar is None:
        return f"{text}."
    test = one.mcnemar
    return (
        f"{text}. {test.this} examples are right only with the first, {test.other} only with the second (McNemar's "
        "exact test: p = "
        f"{test.p:.3g}{', a difference' if test.p < _SURE else ', no clear difference'})."
    )


def one_line(text: str, limit: int) -> str:
    """Text of strangers on one line, cut at `limit`, without signs that a terminal or a browser would obey."""
    line = " ".join(text[: 20 * limit].split())
    line = "".join("\ufffd" if _is_control(sign) else sign for sign in line[: limit + 1])
    return line if len(line) <= limit else f"{line[: limit - 1]}\u2026"


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs", "Co") or sign in _TURNING
