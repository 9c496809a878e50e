"""Rollouts, exactly: a scripted policy plays known texts, so that every segment, prompt and mask is known by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from conftest import ScriptedPolicy, steps

from himac_lite.rollout.play import Arena, Limits, segment_end
from himac_lite.rollout.rules import ReturnRule
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Blueprint, End, Invalid, Level, Role, Sampling, SubGoal

TWO = Level(("########", "#  @   #", "# $  $ #", "# .  . #", "########"))
FIRST = "push the box at (2,2) down to (3,2)"  # left, down
SECOND = "push the box at (2,5) down to (3,5)"  # then up, right, right, right, down
CORRIDOR = Level(("#######", "#@$  .#", "#######"))  # right, right, right
FAR = "push the box at (1,2) right to (1,5)"
SPARSE = ReturnRule()


def plan(*subgoals: str) -> Blueprint:
    goals = tuple(map(SubGoal, subgoals))
    return Blueprint("".join("\n" + g for g in subgoals), goals)


# ---- how a segment ends ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """The part of an episode that `segment_end` reads."""

    steps: int
    over: bool = False
    success: bool = False


@pytest.mark.parametrize(
    ("moment", "steps_of_segment", "checked", "said_done", "end"),
    [
        # Limits: 10 steps per episode, 4 per segment. Each row adds a reason that takes precedence over those above.
        (Moment(9), 3, False, False, None),
        (Moment(9), 4, False, False, End.BUDGET),
        (Moment(9), 5, False, False, End.BUDGET),
        (Moment(9), 4, True, False, End.VERIFIED),
        (Moment(10), 4, True, False, End.TRUNCATED),
        (Moment(10, over=True), 4, True, False, End.OVER),
        (Moment(10, over=True, success=True), 4, True, False, End.SUCCESS),
        (Moment(10, over=True, success=True), 4, True, True, End.SUB_DONE),
        # Each reason alone.
        (Moment(1), 1, True, False, End.VERIFIED),
        (Moment(10), 1, False, False, End.TRUNCATED),
        (Moment(1, over=True), 1, False, False, End.OVER),
        (Moment(1, over=True, success=True), 1, False, False, End.SUCCESS),
        (Moment(0), 0, False, True, End.SUB_DONE),
    ],
)
def test_the_end_of_a_segment_by_hand(moment, steps_of_segment, checked, said_done, end):
    limits = Limits(10, 4, lambda episode, subgoal: checked)
    assert segment_end(moment, SubGoal(FAR), steps_of_segment, limits, said_done) is end


def test_the_check_sees_the_episode_and_its_sub_goal_and_is_optional():
    asked = []
    limits = Limits(10, 4, lambda episode, subgoal: asked.append((episode, subgoal)) or True)
    assert segment_end(Moment(1), SubGoal(FAR), 1, limits) is End.VERIFIED
    assert asked == [(Moment(1), SubGoal(FAR))]
    assert segment_end(Moment(1), SubGoal(FAR), 1, Limits(10, 4)) is None


def test_the_end_of_a_segment_has_no_side_effects():
    task = SokobanTask(max_steps=3)
    episode, untouched = task.start(CORRIDOR), task.start(CORRIDOR)
    for said_done in (False, True):
        for steps_of_segment in (0, 1):
            segment_end(episode, SubGoal(FAR), steps_of_segment, Limits(3, 1), said_done)
    assert (episode.steps, episode.moves, episode.over) == (untouched.steps, untouched.moves, untouched.over)
    assert episode.prompt(Role.FLAT) == untouched.prompt(Role.FLAT)


def test_sub_done_and_success():
    policy = ScriptedPolicy(steps("l d done"), steps("u r r r d l l l"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(TWO, plan(FIRST, SECOND))])
    assert [s.end for s in episode.segments] == [End.SUB_DONE, End.SUCCESS]
    assert episode.segment_moves == (2, 5)  # success ends it at once: the last three moves are not played
    assert episode.moves == "lDurrrD"
    assert (episode.success, episode.ret, episode.steps) == (True, 1.0, 7)
    assert [s.text for s in episode.segments] == [
        "\nleft moved (1,2)\ndown pushed (2,2)<sub_done>",
        "\nup moved (1,2)\nright moved (1,3)\nright moved (1,4)\nright moved (1,5)\ndown",
    ]


def test_success_leaves_the_rest_of_the_blueprint():
    policy = ScriptedPolicy(steps("r r r done"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(CORRIDOR, plan(FAR, FAR, FAR))])
    assert [s.end for s in episode.segments] == [End.SUCCESS]
    assert episode.moves == "RRR"
    assert episode.success


def test_budget_leaves_a_subgoal_without_sub_done():
    # Two steps a sub-goal: the first segment is cut after "l d" although <sub_done> would have come next; a blocked
    # move is a step as well; the third ends itself within its budget.
    policy = ScriptedPolicy(steps("l d done"), steps("l l l l"), steps("u done"))
    task = SokobanTask(subgoal_budget=2)
    (episode,) = Arena(policy, task, returns=SPARSE).execute([(TWO, plan(FIRST, SECOND, SECOND))])
    assert [s.end for s in episode.segments] == [End.BUDGET, End.BUDGET, End.SUB_DONE]
    assert episode.segment_moves == (2, 2, 1)
    assert episode.moves == "lDllu"  # (2,2) → (2,1), blocked there, → (1,1)
    assert (episode.success, episode.ret, episode.steps) == (False, 0.0, 5)
    assert "<sub_done>" not in episode.segments[0].text


def test_the_last_step_of_the_budget_may_succeed():
    policy = ScriptedPolicy(steps("r r r"))
    (episode,) = Arena(policy, SokobanTask(subgoal_budget=3), returns=SPARSE).execute([(CORRIDOR, plan(FAR))])
    assert [s.end for s in episode.segments] == [End.SUCCESS]


def test_the_step_limit_truncates():
    policy = ScriptedPolicy(steps("l d done"), steps("u r r r d"))
    (episode,) = Arena(policy, SokobanTask(max_steps=4), returns=SPARSE).execute([(TWO, plan(FIRST, SECOND, SECOND))])
    assert [s.end for s in episode.segments] == [End.SUB_DONE, End.TRUNCATED]
    assert episode.segment_moves == (2, 2)
    assert episode.moves == "lDur"
    assert (episode.success, episode.ret, episode.steps) == (False, 0.0, 4)


def test_the_last_step_of_the_episode_may_succeed():
    policy = ScriptedPolicy(steps("r r r"))
    (episode,) = Arena(policy, SokobanTask(max_steps=3), returns=SPARSE).execute([(CORRIDOR, plan(FAR))])
    assert [s.end for s in episode.segments] == [End.SUCCESS]


def test_sub_done_at_once_is_a_segment_without_steps():
    policy = ScriptedPolicy(steps("done"), steps("l done"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(TWO, plan(FIRST, SECOND))])
    assert episode.segment_moves == (0, 1)
    assert episode.steps == 1
    assert episode.segments[0].text == "<sub_done>"


def test_an_episode_ends_with_its_blueprint():
    policy = ScriptedPolicy(steps("r done"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(CORRIDOR, plan(FAR))])
    assert (episode.success, episode.steps) == (False, 1)


def test_a_level_that_starts_solved_is_not_played():
    solved = Level(("#####", "#@* #", "#####"))
    policy = ScriptedPolicy()
    task = SokobanTask()
    for episode in Arena(policy, task, returns=SPARSE).execute([(solved, plan(FAR))]) + Arena(
        policy, task, returns=SPARSE
    ).play_flat([solved]):
        assert (episode.success, episode.ret, episode.steps, episode.segments) == (True, 1.0, 0, ())


# ---- what the executor reads -------------------------------------------------------------------------------------


def test_the_executor_reads_the_board_as_it_is_now_and_the_active_subgoal_alone():
    policy = ScriptedPolicy(steps("l d done"), steps("r u done"), steps("u r r d"))
    task = SokobanTask(max_steps=8)
    Arena(policy, task, returns=SPARSE).execute([(TWO, plan(FIRST, SECOND, SECOND))])
    start = "\n########\n#  @   #\n# $  $ #\n# .  . #\n########\n\n"
    after_first = "\n########\n#      #\n# @  $ #\n# *  . #\n########\n\n"
    after_second = "\n########\n#  @   #\n#    $ #\n# *  . #\n########\n\n"  # right to (2,3), up to (1,3)
    assert policy.prompts == [
        f"<act>{start}\n{FIRST}<again>{start}",
        f"<act>{after_first}\n{SECOND}<again>{after_first}",
        f"<act>{after_second}\n{SECOND}<again>{after_second}",
    ]


def test_the_segments_hold_what_was_read():
    policy = ScriptedPolicy(steps("l d done"), steps("u done"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(TWO, plan(FIRST, SECOND))])
    for prompt, segment in zip(policy.prompts, episode.segments, strict=True):
        assert policy.text(segment.ids[: segment.prompt_len]) == prompt
        assert policy.text(segment.ids) == prompt + segment.text
        assert segment.role is Role.EXECUTOR


def test_flat_play_and_planner_read_the_whole_level_once():
    board = "\n#######\n#@$  .#\n#######\n\n"
    policy = ScriptedPolicy(steps("r r r"), f"\n{FAR}<end>")
    Arena(policy, SokobanTask(), returns=SPARSE).play_flat([CORRIDOR])
    Arena(policy, SokobanTask()).blueprints([CORRIDOR], 1)
    assert policy.prompts == [f"<play>{board}<again>{board}", f"<plan>{board}<again>{board}"]


# ---- masks and log-probabilities ---------------------------------------------------------------------------------


def test_the_action_mask_covers_exactly_what_was_sampled():
    policy = ScriptedPolicy(steps("l d done"))
    (episode,) = Arena(policy, SokobanTask(), returns=SPARSE).execute([(TWO, plan(FIRST))])
    (segment,) = episode.segments
    n = segment.prompt_len
    pieces = [policy.text([i]) for i in segment.ids[n:]]
    assert pieces == ["\nleft", " moved (1,2)", "\ndown", " pushed (2,2)", "<sub_done>"]
    assert segment.action_mask[n:] == (True, False, True, False, True)
    assert segment.logp[n:] == (-0.1, 0.0, -0.2, 0.0, -0.3)
    assert not any(segment.action_mask[:n])
    assert not any(segment.logp[:n])
    assert len(segment.ids) == len(segment.action_mask) == len(segment.logp) == n + 5
    assert episode.n_tokens == 3


def test_the_rest_of_an_action_of_several_tokens_is_forced():
    # "\nright" and then "(0,0)(0,1)", which the environment completes; then what was observed.
    task = SokobanTask(actions=("\nup", "\ndown(0,0)", "\nleft", "\nright(0,0)(0,1)"), subgoal_budget=2)
    policy = ScriptedPolicy(steps("r r r"))
    (episode,) = Arena(policy, task, returns=SPARSE).execute([(CORRIDOR, plan(FAR))])
    (segment,) = episode.segments
    n = segment.prompt_len
    pieces = [policy.text([i]) for i in segment.ids[n:]]
    assert pieces == ["\nright", "(0,0)", "(0,1)", " pushed (1,2)", "\nright"]
    assert segment.action_mask[n:] == (True, False, False, False, True)
    assert episode.moves == "RR"


def test_what_all_actions_begin_with_is_written_for_the_model():
    # As with a hub's tokenizer, to which "\nup" is a line break and a word: here "(0,0)" stands for the line break.
    task = SokobanTask(actions=("(0,0)\nup", "(0,0)\ndown", "(0,0)\nleft", "(0,0)\nright"))
    policy = ScriptedPolicy(steps("l d done"))
    (episode,) = Arena(policy, task, returns=SPARSE).execute([(TWO, plan(FIRST))])
    (segment,) = episode.segments
    n = segment.prompt_len
    assert policy.text(segment.ids[:n]).endswith("########\n\n(0,0)")
    pieces = [policy.text([i]) for i in segment.ids[n:]]
    assert pieces == ["\nleft", " moved (1,2)", "(0,0)", "\ndown", " pushed (2,2)", "(0,0)", "<sub_done>"]
    assert segment.action_mask[n:] == (True, False, False, True, False, False, True)
    assert (episode.moves, segment.end) == ("lD", End.SUB_DONE)


def test_a_blueprint_is_trained_with_its_end_token():
    policy = ScriptedPolicy(f"\n{FAR}<end>")
    (((sequence, blueprint),),) = Arena(policy, SokobanTask()).blueprints([CORRIDOR], 1)
    n = sequence.prompt_len
    pieces = [policy.text([i]) for i in sequence.ids[n:]]
    assert pieces == ["\npush the box at ", "(1,2)", " right to ", "(1,5)", "<end>"]
    assert sequence.action_mask == (*[False] * n, *[True] * 5)
    assert sequence.logp[n:] == (-0.1, -0.2, -0.3, -0.4, -0.5)
    assert (sequence.role, sequence.end, sequence.text) == (Role.PLANNER, End.PLAN, f"\n{FAR}")
    assert blueprint == Blueprint(f"\n{FAR}", (SubGoal(FAR),), None)


# ---- blueprints --------------------------------------------------------------------------------------------------


def test_blueprints_come_in_groups_in_the_order_of_their_levels():
    texts = [FIRST, SECOND, FAR, FAR.replace("5", "4"), FAR.replace("5", "3"), FAR]
    policy = ScriptedPolicy(*(f"\n{t}<end>" for t in texts))
    groups = Arena(policy, SokobanTask()).blueprints([TWO, CORRIDOR], 3, Sampling(0.8))
    assert [[b.subgoals[0].text for _, b in group] for group in groups] == [texts[:3], texts[3:]]
    assert [[s.text for s, _ in group] for group in groups] == [
        [f"\n{t}" for t in texts[:3]],
        [f"\n{t}" for t in texts[3:]],
    ]
    # One call for all, sampled as asked, with room for 12 sub-goals of 4 tokens and the end token.
    assert policy.calls == [{"rows": 6, "temperature": 0.8, "max_sampled": 49}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<end>", Invalid.EMPTY),
        (f"\n{FAR}" * 13, Invalid.UNFINISHED),  # cut off after 49 tokens
        (f"\n{FAR}" * 12 + "<end>", None),
        ("\nup" * 14 + "<end>", Invalid.TOO_LONG),
        (f"\n{FAR}\npush the box at <end>", Invalid.SYNTAX),
        ("\nup moved (1,2)<end>", Invalid.SYNTAX),
        ("<sub_done><end>", Invalid.SYNTAX),
        ("\npush the box at (1,2) right to (2,3)<end>", Invalid.GEOMETRY),
        ("\npush the box at (1,2) left to (1,3)<end>", Invalid.GEOMETRY),
    ],
)
def test_an_invalid_blueprint_has_a_reason_and_executes_nothing(text, reason):
    policy = ScriptedPolicy(text)
    task = SokobanTask()
    (((sequence, blueprint),),) = Arena(policy, task).blueprints([CORRIDOR], 1)
    assert blueprint.invalid is reason
    assert sum(sequence.action_mask) <= 49  # what was written is trained on all the same
    if reason is None:
        assert len(blueprint.subgoals) == 12
        return
    assert sequence.text == blueprint.text
    # One of two boxes is in place from the start: still nothing is earned.
    half = Level(("#######", "#@$ .*#", "#######"))
    (episode,) = Arena(policy, task, returns=ReturnRule(0.5)).execute([(half, blueprint)])
    assert (episode.ret, episode.success, episode.steps, episode.moves) == (0.0, False, 0, "")
    assert episode.segments == ()
    assert episode.blueprint is blueprint
    assert len(policy.calls) == 1  # the executor was not asked anything


# ---- returns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "worth"),
    # With one of two boxes in place, a failure is worth share × 1/2.
    [(0.0, 0.0), (0.1, 0.05), (1.0, 0.5)],
)
def test_a_failure_costs_the_same_however_early_it_ends(share, worth):
    at_once = ScriptedPolicy(steps("l d done"))
    wandering = ScriptedPolicy(steps("l d done"), steps("u d " * 20))
    flat = ScriptedPolicy(steps("l d " + "u d " * 20))
    task = SokobanTask(max_steps=30, subgoal_budget=25)
    rule = ReturnRule(share)
    (early,) = Arena(at_once, task, returns=rule).execute([(TWO, plan(FIRST))])
    (budget,) = Arena(wandering, task, returns=rule).execute([(TWO, plan(FIRST, SECOND))])
    (limit,) = Arena(flat, task, returns=rule).play_flat([TWO])
    assert [e.steps for e in (early, budget, limit)] == [2, 27, 30]
    assert [e.segments[-1].end for e in (early, budget, limit)] == [End.SUB_DONE, End.BUDGET, End.TRUNCATED]
    assert [e.ret for e in (early, budget, limit)] == [worth] * 3


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_success_is_worth_one_however_late_it_comes(share):
    task = SokobanTask()
    policy = ScriptedPolicy(steps("r r r"), steps("u u u l r r r"))
    soon, late = Arena(policy, task, returns=ReturnRule(share)).execute([(CORRIDOR, plan(FAR))] * 2, Sampling(1.0))
    assert (soon.steps, late.steps) == (3, 7)
    assert (soon.ret, late.ret) == (1.0, 1.0)


# ---- many at once ------------------------------------------------------------------------------------------------


def test_jobs_run_side_by_side_and_leave_when_they_end():
    invalid = Blueprint("", (), Invalid.EMPTY)
    jobs = [(TWO, plan(FIRST, SECOND)), (CORRIDOR, invalid), (CORRIDOR, plan(FAR, FAR, FAR)), (CORRIDOR, plan(FAR))]
    policy = ScriptedPolicy(
        # first round: jobs 0, 2, 3; second: 0, 2; third: 2
        steps("l d done"), steps("r done"), steps("r r r"),
        steps("u r r r d"), steps("done"),
        steps("r r"),
    )  # fmt: skip
    done = Arena(policy, SokobanTask(subgoal_budget=20), returns=SPARSE).execute(jobs, Sampling(0.5))
    assert [c["rows"] for c in policy.calls] == [3, 2, 1]
    assert {c["temperature"] for c in policy.calls} == {0.5}
    assert policy.unused == 0
    assert [e.moves for e in done] == ["lDurrrD", "", "RRR", "RRR"]
    assert [e.segment_moves for e in done] == [(2, 5), (), (1, 0, 2), (3,)]
    assert [e.success for e in done] == [True, False, True, True]
    assert [e.blueprint for e in done] == [blueprint for _, blueprint in jobs]


def test_flat_play():
    policy = ScriptedPolicy(steps("u r r r"), steps("l l u d l r"))
    won, lost = Arena(policy, SokobanTask(max_steps=5), returns=SPARSE).play_flat([CORRIDOR, TWO])
    assert (won.moves, won.success, won.ret, won.segment_moves, won.blueprint) == ("uRRR", True, 1.0, (4,), None)
    assert (lost.moves, lost.success, lost.ret, lost.segment_moves) == ("lludl", False, 0.0, (5,))
    assert [e.segments[0].end for e in (won, lost)] == [End.SUCCESS, End.TRUNCATED]
    assert [len(e.segments) for e in (won, lost)] == [1, 1]
    assert {e.segments[0].role for e in (won, lost)} == {Role.FLAT}
    assert won.segments[0].text == "\nup blocked (1,1)\nright pushed (1,2)\nright pushed (1,3)\nright"


def test_a_flat_player_has_no_sub_done():
    with pytest.raises(AssertionError, match="may not be sampled"):
        Arena(ScriptedPolicy(steps("r done")), SokobanTask(), returns=SPARSE).play_flat([CORRIDOR])


def test_the_oracle_is_a_blueprint_that_can_be_executed():
    task = SokobanTask()
    oracle = task.oracle(TWO)
    assert oracle.invalid is None
    assert task.parse_blueprint(oracle.text, True) == oracle
    assert {g.text for g in oracle.subgoals} == {FIRST, SECOND}
    assert [g.text for g in task.oracle(CORRIDOR).subgoals] == [FAR]


def test_greedy_executions_that_coincide_are_played_once():
    """Until their sub-goals differ, greedy executions of one level are one execution; each blueprint gets all of it."""
    jobs = [(TWO, plan(FIRST, SECOND)), (TWO, plan(FIRST)), (TWO, plan(FIRST, SECOND)), (CORRIDOR, plan(FAR))]
    policy = ScriptedPolicy(steps("l d done"), steps("r r r"), steps("u r r r d"))
    done = Arena(policy, SokobanTask(subgoal_budget=20), returns=SPARSE).execute(jobs)
    assert policy.unused == 0
    assert [c["rows"] for c in policy.calls] == [2, 1]  # jobs 0, 1 and 2 together, job 3; then jobs 0 and 2 together
    whole, first, right = [steps("l d done"), steps("u r r r d")], [steps("l d done")], [steps("r r r")]
    alone = [
        Arena(ScriptedPolicy(*scripts), SokobanTask(subgoal_budget=20), returns=SPARSE).execute([job])[0]
        for job, scripts in zip(jobs, [whole, first, whole, right], strict=True)
    ]
    assert done == alone
