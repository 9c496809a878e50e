"""A variant of one's own in a run's manifest: what is kept, what comes back, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from himac_lite.advantage import group_advantage
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import (
    PRESETS,
    BySegment,
    Hierarchy,
    choose_softmax,
    fixed_steps,
    full_history,
    mean_of,
    subgoal_bonus,
    turns,
    verified,
    whole_plan,
)
from himac_lite.hierarchy.named import KNOWN, in_words, own_axes, played_as
from himac_lite.tasks.sokoban.goals import achieved, one_cell_at_a_time
from himac_lite.types import Blueprint


def idle(blueprint: Blueprint) -> Blueprint:
    return replace(blueprint, subgoals=())


def test_presets_need_no_words():
    assert all(own_axes(value, name) is None for name, value in PRESETS.items())
    assert own_axes(PRESETS["flat_grpo"], "himac") == {"depth": 1}  # but not under the name of another
    assert own_axes(Hierarchy(), "flat_grpo") == {}


def test_functions_are_said_with_what_they_were_made_with():
    axes, carrying = "himac_lite.hierarchy.axes", "himac_lite.rollout.rules"
    own = Hierarchy(
        schedule=turns(3, 1), score=mean_of(2), choose=choose_softmax(0.3), form=idle, end=fixed_steps(4),
        reward=subgoal_bonus(achieved, 0.5), credit=BySegment(2.0), macro_advantage=partial(group_advantage, ddof=1),
        micro_advantage=lambda return_pn: return_pn,
    )  # fmt: skip
    said = own_axes(own, "himac")
    assert said == {
        "schedule": {f"{axes}.turns.<locals>.<lambda>": {"executor": 1, "planner": 3}},
        "score": {f"{axes}.mean_of.<locals>.score": {"k": 2}},
        "choose": {f"{axes}.choose_softmax.<locals>.choose": {"temperature": 0.3}},
        "form": "own:idle",
        "end": {f"{carrying}.Ending": {"sub_done": False, "steps": 4, "check": None}},
        "reward": {
            f"{carrying}.subgoal_bonus.<locals>.<lambda>": {
                "bonus": 0.5,
                "check": "himac_lite.tasks.sokoban.goals.achieved",
            }
        },
        "credit": {f"{axes}.BySegment": {"omega": 2.0}},
        "macro_advantage": {"himac_lite.advantage.group_advantage": {"ddof": 1}},
        "micro_advantage": "own:test_functions_are_said_with_what_they_were_made_with.<locals>.<lambda>",
    }
    assert json.loads(json.dumps(said)) == said
    assert in_words({"form": "own:idle", "depth": 3}) == "form=own:idle, depth=3"


def test_a_function_that_holds_itself_has_an_end():
    def again(blueprint: Blueprint, depth: int = 0) -> Blueprint:
        return blueprint if depth else again(other and blueprint, 1)

    def other() -> object:
        return again

    assert "form" in (own_axes(Hierarchy(form=again), "himac") or {})


@pytest.mark.parametrize(
    "own",
    [
        Hierarchy(depth=3, end=fixed_steps(2)),
        Hierarchy(form=one_cell_at_a_time, end=verified(achieved), exhausted="replan", context=whole_plan),
        Hierarchy(exhausted="abort", context=full_history),
    ],
    ids=["three", "goals", "history"],
)
def test_what_the_library_has_comes_back(own):
    axes = json.loads(json.dumps(own_axes(replace(own, score=mean_of(2)), "himac")))
    assert played_as(axes) == own
    assert played_as(axes).rules == own.rules


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"form": "own:idle"}, 'form cannot be had back by name: "own:idle"'),
        ({"form": "os.system"}, "form cannot"),
        ({"form": "himac_lite.rollout.rules.fixed_steps"}, "form cannot"),
        ({"context": {"x": 1}}, "context cannot"),
        ({"end": "himac_lite.rollout.rules.Ending"}, "end cannot"),
        ({"end": {"himac_lite.rollout.rules.Ending": {"sub_done": 1, "steps": None, "check": None}}}, "end cannot"),
        (
            {"end": {"himac_lite.rollout.rules.Ending": {"sub_done": True, "steps": None, "check": "own:mine"}}},
            "end cannot",
        ),
        ({"depth": 4}, "depth must be 1, 2 or 3"),
        ({"depth": []}, "depth must be"),
        ({"exhausted": ["next"]}, "exhausted must be"),
        ([1], "cannot be read"),
        ("form", "cannot be read"),
    ],
)
def test_what_is_not_known_is_named_and_nothing_is_imported(axes, said):
    with pytest.raises(ConfigError, match=said):
        played_as(axes)


def test_every_known_name_is_a_function():
    from importlib import import_module

    for name in KNOWN:
        module, _, function = name.rpartition(".")
        assert callable(getattr(import_module(module), function))
