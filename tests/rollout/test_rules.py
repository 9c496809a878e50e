"""How a blueprint is carried out: every axis of `carrying`, exactly, with a scripted policy."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import ScriptedPolicy, steps

from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import (
    Fallback,
    ReturnRule,
    Rules,
    as_read,
    distance_decrease,
    fixed_steps,
    full_history,
    reached_by_world,
    subgoal_bonus,
    verified,
    whole_plan,
)
from himac_lite.tasks.sokoban.goals import LOST, achieved, carried_out, moves_left, one_cell_at_a_time
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import GREEDY, Blueprint, End, Invalid, Level, Role, SubGoal

TWO = Level(("########", "#  @   #", "# $  $ #", "# .  . #", "########"))
FIRST = "push the box at (2,2) down to (3,2)"  # left, down
SECOND = "push the box at (2,5) down to (3,5)"  # then up, right, right, right, down
CORRIDOR = Level(("#######", "#@$  .#", "#######"))  # right, right, right
FAR = "push the box at (1,2) right to (1,5)"
NEAR = "push the box at (1,2) right to (1,3)"
REST = "push the box at (1,3) right to (1,5)"
TASK = SokobanTask()
START = "\n#######\n#@$  .#\n#######\n\n"
ABORTING, REPLANNING = Rules(fallback=Fallback(exhausted="abort")), Rules(fallback=Fallback(exhausted="replan"))
AFTER_ONE = "\n#######\n# @$ .#\n#######\n\n"


def plan(*subgoals: str) -> Blueprint:
    return Blueprint("".join("\n" + g for g in subgoals), tuple(map(SubGoal, subgoals)))


def run(policy: ScriptedPolicy, rules: Rules, *plans: Blueprint, level: Level = CORRIDOR, **more: Any) -> list[Any]:
    done = Arena(policy, more.pop("task", TASK), rules=rules).execute([(level, z) for z in plans])
    assert policy.unused == 0
    return done


# ---- the end of a sub-goal ---------------------------------------------------------------------------------------


def test_fixed_steps_are_all_played_and_sub_done_cannot_be_said():
    policy = ScriptedPolicy(steps("r u"), steps("u r"), steps("r"))
    (episode,) = run(policy, Rules(end=fixed_steps(2)), plan(NEAR, REST, REST))
    assert [s.end for s in episode.segments] == [End.BUDGET, End.BUDGET, End.SUCCESS]
    assert episode.segment_moves == (2, 2, 1)
    assert {s.role for s in episode.segments} == {Role.DRIVEN}
    # The same constraint when it is scored: four actions, and not <sub_done>.
    codes = policy.codes(TASK)
    assert {s.allowed for s in episode.segments} == {tuple(codes.actions)}
    assert codes.sub_done in (codes.allowed(with_sub_done=True) or ())
    with pytest.raises(AssertionError, match="may not be sampled"):
        run(ScriptedPolicy(steps("r done")), Rules(end=fixed_steps(2)), plan(NEAR))


def test_a_verifier_ends_what_is_done():
    policy = ScriptedPolicy(steps("u r"), steps("r r"))
    (episode,) = run(policy, Rules(end=verified(achieved)), plan(NEAR, REST))
    assert [s.end for s in episode.segments] == [End.VERIFIED, End.SUCCESS]
    assert episode.segment_moves == (2, 2)


def test_a_verifier_leaves_the_budget_in_force():
    (episode,) = run(
        ScriptedPolicy(steps("u u")), Rules(end=verified(achieved)), plan(NEAR), task=SokobanTask(subgoal_budget=2)
    )
    assert [s.end for s in episode.segments] == [End.BUDGET]


# ---- the budget is used up ---------------------------------------------------------------------------------------


def test_abort_ends_the_episode():
    task = SokobanTask(subgoal_budget=2)
    (episode,) = run(ScriptedPolicy(steps("u u")), ABORTING, plan(NEAR, REST), task=task)
    assert [s.end for s in episode.segments] == [End.BUDGET]
    assert (episode.success, episode.steps) == (False, 2)
    # A sub-goal that ended itself is no reason to abort.
    policy = ScriptedPolicy(steps("r done"), steps("r r"))
    (episode,) = run(policy, ABORTING, plan(NEAR, REST), task=task)
    assert episode.success


def test_replanning_asks_the_planner_about_the_board_as_it_is():
    policy = ScriptedPolicy(steps("r u"), f"\n{REST}<end>", steps("r r"))
    (episode,) = run(policy, REPLANNING, plan(FAR, NEAR), task=SokobanTask(subgoal_budget=2))
    assert policy.prompts == [
        f"<act>{START}\n{FAR}<again>{START}",
        f"<plan>{AFTER_ONE}<again>{AFTER_ONE}",
        f"<act>{AFTER_ONE}\n{REST}<again>{AFTER_ONE}",
    ]
    assert episode.success
    assert episode.blueprint == plan(FAR, NEAR)  # what the planner is credited for
    assert episode.told == (SubGoal(FAR), SubGoal(REST))  # what the executor did: NEAR was dropped
    assert [s.text for s in episode.replans] == [f"\n{REST}"]
    # Tokens: 2 actions, 4 words and <end>, 2 actions.
    assert episode.n_tokens == 2 + 5 + 2


def test_an_unreadable_new_plan_changes_nothing():
    policy = ScriptedPolicy(steps("u u"), "<end>", steps("r r"), "<end>", steps("r"))
    (episode,) = run(policy, REPLANNING, plan(FAR), task=SokobanTask(subgoal_budget=2))
    assert episode.told == (SubGoal(FAR),) * 3  # the same sub-goal got another budget, twice
    assert episode.success


# ---- when the plan is used up, or a sub-goal was missed --------------------------------------------------------------


def test_by_default_an_episode_ends_with_its_plan():
    (episode,) = run(ScriptedPolicy(steps("r done")), Rules(), plan(NEAR))
    assert (episode.success, episode.steps, episode.replans) == (False, 1, ())


def test_the_last_subgoal_is_kept_until_the_step_limit():
    """The kept segment has no `<sub_done>` and no budget: 4 steps exceed the budget of 2."""
    policy = ScriptedPolicy(steps("r done"), steps("l r l r"))
    rules = Rules(fallback=Fallback(used_up="keep"))
    (episode,) = run(policy, rules, plan(NEAR), task=SokobanTask(max_steps=5, subgoal_budget=2))
    assert [s.end for s in episode.segments] == [End.SUB_DONE, End.TRUNCATED]
    assert [s.role for s in episode.segments] == [Role.EXECUTOR, Role.DRIVEN]
    assert episode.told == (SubGoal(NEAR),) * 2
    assert (episode.steps, episode.success) == (5, False)


def test_a_used_up_plan_gives_way_to_a_new_one_for_the_board_as_it_is():
    policy = ScriptedPolicy(steps("r done"), f"\n{REST}<end>", steps("r r"))
    (episode,) = run(policy, Rules(fallback=Fallback(used_up="replan")), plan(NEAR))
    assert policy.prompts[1] == f"<plan>{AFTER_ONE}<again>{AFTER_ONE}"
    assert episode.told == (SubGoal(NEAR), SubGoal(REST))
    assert (episode.success, episode.steps, len(episode.replans)) == (True, 3, 1)
    written = sum(sum(s.action_mask) for s in episode.replans)
    assert episode.n_tokens == 2 + 2 + written > 4  # the new plan's tokens count


def test_replanning_stops_on_a_board_that_did_not_change():
    """The executor does nothing, so the planner would write the same plan for ever."""
    policy = ScriptedPolicy(steps("r done"), f"\n{REST}<end>", steps("done"))
    (episode,) = run(policy, Rules(fallback=Fallback(used_up="replan")), plan(NEAR))
    assert (episode.success, episode.steps, len(episode.replans)) == (False, 1, 1)


def test_an_invalid_new_plan_ends_the_episode():
    policy = ScriptedPolicy(steps("r done"), "<end>")
    (episode,) = run(policy, Rules(fallback=Fallback(used_up="replan")), plan(NEAR))
    assert (episode.success, episode.steps, len(episode.replans)) == (False, 1, 1)


def test_an_invalid_first_plan_is_not_replaced():
    (episode,) = run(ScriptedPolicy(), Rules(fallback=Fallback("replan")), Blueprint("what?", (), Invalid.SYNTAX))
    assert (episode.success, episode.steps, episode.replans) == (False, 0, ())


def test_a_missed_subgoal_uses_up_the_plan_if_the_world_can_tell():
    """The executor says that FAR is done after one step. NEAR, which it reaches, is followed by the next sub-goal."""
    rules = Rules(fallback=Fallback("replan", "abort", reached_by_world))
    policy = ScriptedPolicy(steps("r done"), f"\n{REST}<end>", steps("r r"))
    (episode,) = run(policy, rules, plan(FAR, NEAR))
    assert episode.told == (SubGoal(FAR), SubGoal(REST))
    assert episode.success
    (other,) = run(ScriptedPolicy(steps("r done"), steps("r r")), rules, plan(NEAR, REST))
    assert (other.success, other.replans) == (True, ())


def test_no_new_plan_when_the_episode_is_over():
    policy = ScriptedPolicy(steps("u u"))
    (episode,) = run(policy, REPLANNING, plan(FAR), task=SokobanTask(subgoal_budget=2, max_steps=2))
    assert episode.replans == ()


def test_keep_or_switch_asks_after_every_step():
    rules = Rules(end=fixed_steps(1), fallback=Fallback(exhausted="replan"))
    policy = ScriptedPolicy(steps("r"), f"\n{REST}<end>", steps("r"), "<end>", steps("r"))
    (episode,) = run(policy, rules, plan(FAR))
    assert episode.told == (SubGoal(FAR), SubGoal(REST), SubGoal(REST))
    assert episode.segment_moves == (1, 1, 1)
    assert episode.success


def test_equal_greedy_executions_are_one_until_their_plans_differ():
    """Two runs with one sub-goal in common share its segment; replanned alike, they go on as one; else apart."""
    rules, task = REPLANNING, SokobanTask(subgoal_budget=2)
    alike = ScriptedPolicy(
        steps("u u"), f"\n{FAR}<end>", f"\n{FAR}<end>", steps("r r"), *[f"\n{FAR}<end>"] * 2, steps("r")
    )
    first, second = run(alike, rules, plan(NEAR), plan(NEAR, REST), task=task)
    assert first.moves == second.moves == "uuRRR"
    apart = ScriptedPolicy(steps("u u"), f"\n{FAR}<end>", f"\n{NEAR}<end>", steps("r done"), steps("r done"))
    first, second = run(apart, rules, plan(NEAR), plan(NEAR, REST), task=task)
    assert (first.told[1:], second.told[1:]) == ((SubGoal(FAR),), (SubGoal(NEAR),))


# ---- form and context --------------------------------------------------------------------------------------------


def test_the_form_is_what_the_executor_is_told():
    policy = ScriptedPolicy(steps("r done"), steps("r done"), steps("r"))
    (episode,) = run(policy, Rules(form=one_cell_at_a_time), plan(FAR))
    assert [goal.text for goal in episode.told] == [
        "push the box at (1,2) right to (1,3)",
        "push the box at (1,3) right to (1,4)",
        "push the box at (1,4) right to (1,5)",
    ]
    assert episode.blueprint == plan(FAR)
    assert episode.success


def test_the_whole_plan_in_sight():
    policy = ScriptedPolicy(steps("r done"), steps("r r"))
    run(policy, Rules(context=whole_plan), plan(NEAR, REST))
    # The active sub-goal stands last, next to the second reading of the board.
    assert policy.prompts == [
        f"<act>{START}\n{REST}\n{NEAR}<again>{START}",
        f"<act>{AFTER_ONE}\n{REST}<again>{AFTER_ONE}",
    ]


def test_the_whole_history_in_sight():
    policy = ScriptedPolicy(steps("r done"), steps("r r"))
    (episode,) = run(policy, Rules(context=full_history), plan(NEAR, REST))
    first = f"<act>{START}\n{NEAR}<again>{START}"
    assert policy.prompts[0] == first
    assert policy.prompts[1] == f"{first}\nright pushed (1,2)<sub_done><act>{AFTER_ONE}\n{REST}<again>{AFTER_ONE}"
    assert not any(episode.segments[1].action_mask[: episode.segments[1].prompt_len])  # history is not learnt again


def test_what_reads_different_is_not_played_once():
    """With the whole plan in sight, two plans with one first sub-goal are two executions from the start."""
    one, other = ScriptedPolicy(steps("r r r")), ScriptedPolicy(steps("r r r"), steps("u r r r"))
    assert len(run(one, Rules(), plan(FAR), plan(FAR, NEAR))) == 2
    first, second = run(other, Rules(context=whole_plan), plan(FAR), plan(FAR, NEAR))
    assert (first.moves, second.moves) == ("RRR", "uRRR")


# ---- reward and states -------------------------------------------------------------------------------------------


def test_a_bonus_for_every_sub_goal_that_gets_done():
    policy = ScriptedPolicy(steps("r done"), steps("u done"), steps("r r"))
    (episode,) = run(policy, Rules(potential=subgoal_bonus(achieved, 0.5)), plan(NEAR, REST, REST))
    assert episode.gains == (0.5, 0.0, 0.5)
    assert episode.ret == 1.0


def test_a_segment_is_worth_the_way_it_came_nearer():
    # 3 moves to go, 2 after the first segment, 2 after the detour of the second (up is blocked), 0 at the end.
    policy = ScriptedPolicy(steps("r done"), steps("u done"), steps("r r"))
    (episode,) = run(policy, Rules(potential=distance_decrease(moves_left, 0.1)), plan(NEAR, REST, REST))
    assert episode.gains == pytest.approx((0.1, 0.0, 0.2))


def test_states_are_what_was_read_at_each_choice():
    (episode,) = run(ScriptedPolicy(steps("r done"), steps("r r")), Rules(state=as_read), plan(NEAR, REST))
    assert [len(s) for s in episode.states] == [sum(s.action_mask) for s in episode.segments] == [2, 2]
    assert episode.states[0] == (f"<play>{START}<again>{START}", f"<play>{AFTER_ONE}<again>{AFTER_ONE}")
    assert episode.states[1][0] == episode.states[0][1]
    (flat,) = Arena(ScriptedPolicy(steps("r u r r")), TASK, rules=Rules(state=as_read)).play_flat([CORRIDOR])
    assert [len(s) for s in flat.states] == [4]
    assert flat.states[0][1] == flat.states[0][2]  # blocked: nothing changed


def test_without_an_axis_nothing_is_recorded():
    (episode,) = run(ScriptedPolicy(steps("r r r")), Rules(), plan(FAR))
    assert (episode.gains, episode.states, episode.replans) == ((), (), ())
    assert episode.told == (SubGoal(FAR),)


# ---- three levels ------------------------------------------------------------------------------------------------


def test_each_goal_is_divided_when_its_turn_comes():
    policy = ScriptedPolicy(
        f"\n{NEAR}\n{REST}<end>", steps("r done"), steps("u done"), f"\n{REST}<end>", steps("r r"),
    )  # fmt: skip
    (episode,) = run(policy, Rules(tactics=True), plan(FAR, FAR))
    assert policy.prompts == [
        f"<plan>{START}\n{FAR}<again>{START}",
        f"<act>{START}\n{NEAR}<again>{START}",
        f"<act>{AFTER_ONE}\n{REST}<again>{AFTER_ONE}",
        f"<plan>{AFTER_ONE}\n{FAR}<again>{AFTER_ONE}",
        f"<act>{AFTER_ONE}\n{REST}<again>{AFTER_ONE}",
    ]
    assert episode.told == (SubGoal(NEAR), SubGoal(REST), SubGoal(REST))
    assert len(episode.replans) == 2
    assert episode.blueprint == plan(FAR, FAR)
    assert episode.success


def test_the_form_is_of_what_goals_are_divided_into():
    policy = ScriptedPolicy(f"\n{FAR}<end>", steps("r done"), steps("r done"), steps("r"))
    (episode,) = run(policy, Rules(tactics=True, form=one_cell_at_a_time), plan(FAR))
    assert policy.prompts[0] == f"<plan>{START}\n{FAR}<again>{START}"  # the goal in one piece
    assert len(episode.told) == 3
    assert episode.success


def test_an_unreadable_division_is_the_goal_itself():
    (episode,) = run(ScriptedPolicy("<end>", steps("r r r")), Rules(tactics=True), plan(FAR))
    assert episode.told == (SubGoal(FAR),)
    assert episode.success


def test_an_invalid_blueprint_is_not_divided():
    (episode,) = run(ScriptedPolicy(), Rules(tactics=True), Blueprint("what?", (), Invalid.SYNTAX))
    assert (episode.segments, episode.replans, episode.ret) == ((), (), 0.0)


# ---- what axes ask of Sokoban ------------------------------------------------------------------------------------


def test_achieved_means_moved_from_here_to_there():
    episode = TASK.start(CORRIDOR)
    assert not achieved(episode, SubGoal(NEAR))
    episode.act(3)  # right
    assert achieved(episode, SubGoal(NEAR))
    assert not achieved(episode, SubGoal(FAR))
    assert not achieved(episode, SubGoal("what?"))


def test_moves_left():
    episode = TASK.start(CORRIDOR)
    assert moves_left(episode) == 3
    lost = Level(("######", "#@ $ #", "#   .#", "######"))  # along the upper wall: it never comes down
    assert moves_left(TASK.start(lost)) == LOST


def test_a_straight_push_cut_into_cells():
    up = one_cell_at_a_time(plan("push the box at (4,2) up to (2,2)"))
    assert [g.text for g in up.subgoals] == ["push the box at (4,2) up to (3,2)", "push the box at (3,2) up to (2,2)"]
    odd = Blueprint("what?", (), Invalid.SYNTAX)
    assert one_cell_at_a_time(odd) == odd


def test_a_perfect_executor():
    assert carried_out(TWO, plan(FIRST, SECOND)) == 1.0
    assert carried_out(TWO, plan(FIRST)) == 0.0
    assert carried_out(TWO, plan(FIRST, FIRST, SECOND)) == 1.0  # what cannot be done any more is left out
    assert carried_out(TWO, Blueprint("what?", (), Invalid.SYNTAX)) == 0.0


def test_a_table_keeps_what_was_played():
    table = Arena(ScriptedPolicy(steps("r r r"), steps("u r r r")), TASK, Rules(), ReturnRule(), GREEDY)  # type: ignore[arg-type]
    done = table.execute([(CORRIDOR, plan(FAR))]) + table.play_flat([CORRIDOR])
    assert table.played == done
    assert [t.steps for t in done] == [3, 4]
