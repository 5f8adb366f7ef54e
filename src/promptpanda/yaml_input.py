"""YAML from outside: one safe reader, bounded in size, depth, aliases and the digits of its numbers."""

from __future__ import annotations

from typing import Any

import yaml

from promptpanda.errors import PandaError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50  # lists and mappings within each other
MAX_NODES = 100_000  # after every alias is written out
MAX_DIGITS = 18  # of an integer: those fit 64 bits
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):  # type: ignore[misc]
    def construct_integer(self, node: yaml.ScalarNode) -> int:
        digits = str(self.construct_scalar(node))
        if len(digits.lstrip("+-")) > MAX_DIGITS:
            raise ValueError(f"an integer of {len(digits):,} characters; at most {MAX_DIGITS} digits are allowed")
        return int(self.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def read_yaml(text: str, what: str) -> Any:
    """The value of a YAML text: plain data, never objects.

    Args:
        what: begins the sentence where something is wrong, such as the file's path.

    Raises:
        PandaError: not YAML, a value that its tag does not take, or beyond one of the bounds above.
    """
    if len(text) > MAX_CHARACTERS:
        raise PandaError(f"{what} has {len(text):,} characters; expected YAML of at most {MAX_CHARACTERS:,}.")
    try:
        _check_bounds(text)
        return yaml.load(text, Loader=_Loader)
    except PandaError as error:
        raise PandaError(f"{what} {error}") from error
    # Tags on values that they do not take raise plain errors: !!bool abc a KeyError, !!timestamp abc an AttributeError.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160].rstrip(".")
        if isinstance(error, (KeyError, AttributeError, TypeError, IndexError)):
            reason = "a tag such as !!bool or !!timestamp is on a value that it does not take"
        raise PandaError(f"{what} is not valid YAML: {reason}.") from error


def _check_bounds(text: str) -> None:
    """Walk the events, which are made without recursion, before anything is built from them."""
    open_nodes: list[list[Any]] = [[None, 0, 0]]  # anchor, nodes and levels below, of every collection that is open
    known: dict[str, tuple[int, int]] = {}
    for event in yaml.parse(text, Loader=_Safe):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            open_nodes.append([event.anchor, 1, 0])
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, nodes, inner = open_nodes.pop()
            depth = inner + 1
            if anchor is not None:
                known[anchor] = (nodes, depth)
            _add(open_nodes[-1], nodes, depth)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                known[event.anchor] = (1, 0)
            _add(open_nodes[-1], 1, 0)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                raise PandaError(f"has an alias *{event.anchor} to what holds it, or to nothing; write it out.")
            _add(open_nodes[-1], *known[event.anchor])
        if len(open_nodes) - 1 > MAX_DEPTH or open_nodes[-1][2] > MAX_DEPTH:
            raise PandaError(f"is nested too deeply; expected at most {MAX_DEPTH} levels of lists and mappings.")
        if open_nodes[-1][1] > MAX_NODES:
            raise PandaError(f"has more than {MAX_NODES:,} values with its aliases written out; shorten it.")


def _add(place: list[Any], nodes: int, depth: int) -> None:
    place[1] += nodes
    place[2] = max(place[2], depth)
