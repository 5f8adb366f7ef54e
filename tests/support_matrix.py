"""`python tests/support_matrix.py`: prove every family and write what holds to families.yaml and docs/models.md."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from conftest import save_tiny
from families import FAMILIES, NEEDED, PROOFS

from promptpanda.backbone import Backbone
from promptpanda.families import refused

ROOT = Path(__file__).parents[1]
DATA = ROOT / "src/promptpanda/families.yaml"
PAGE = ROOT / "docs/models.md"


def outcome(backbone: Backbone, folder: Path, proof: str) -> bool:
    """Whether a proof holds. One that a family must pass to be listed raises instead."""
    try:
        PROOFS[proof](backbone, folder)
    except AssertionError:
        if proof in NEEDED:
            raise
        return False
    return True


def row(name: str, folder: Path) -> dict[str, object]:
    """What holds of a family."""
    backbone = Backbone.load(str(save_tiny(FAMILIES[name], folder)))
    return {"type": FAMILIES[name].model_type} | {proof: outcome(backbone, folder, proof) for proof in PROOFS}


def table(rows: dict[str, dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = ["| family | transformers' name | " + " | ".join(PROOFS) + " |", "|---|---|" + ":-:|" * len(PROOFS)]
    for name, found in rows.items():
        cells = ["yes" if found[proof] else "no" for proof in PROOFS]
        lines.append(f"| {name} | `{found['type']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def refusals() -> str:
    """The families that are refused, as Markdown."""
    return "".join(f"- `{family}`: {reason}\n" for family, reason in refused().items())


def page(text: str, rows: dict[str, dict[str, object]]) -> str:
    """The page with these rows."""
    for name, lines in (("families", table(rows)), ("refused", refusals())):
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text = between.sub(lambda found, lines=lines: found[1] + lines + found[2], text)
    return text


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for name in FAMILIES:
        with TemporaryDirectory() as folder:
            rows[name] = row(name, Path(folder))
    head = DATA.read_text(encoding="utf-8").split("\n", 1)[0]
    content = {"families": rows, "refused": dict(refused())}
    DATA.write_text(head + "\n" + yaml.safe_dump(content, sort_keys=False, width=110), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
