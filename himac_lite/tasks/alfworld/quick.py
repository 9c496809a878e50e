"""ALFWorld's engine without its repeated work: the same answers, some ten times sooner.

After every step the engine writes each admissible command from its template. It parses that template anew every time,
and copies every object that the template may name. What was parsed is kept here, and the copies are shallow: nobody
writes to the objects. A test plays games both ways and compares every answer.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any


@cache
def quicken() -> None:
    """Change the engine of this process, once. An engine of another version, without these insides, stays as it is."""
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    if not (hasattr(textgen, "_parse_and_convert") and hasattr(textgen, "copy_context")):
        return
    parse = cache(textgen._parse_and_convert)

    def parsed(text: str, **options: Any) -> Any:
        return deepcopy(parse(text, **options))  # of its own: a derivation writes into the symbols

    def copied(context: dict[str, Any]) -> dict[str, Any]:
        return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}

    textgen._parse_and_convert = parsed
    textgen.copy_context = copied
    Rule.parse_conjunctive_query = staticmethod(cache(Rule.parse_conjunctive_query))
