"""Scores of a run on any levels, beside its base and the random policy, under the rules that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence

from himac_lite.hierarchy import Hierarchy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.rollout.evaluate import Score, evaluate
from himac_lite.runs.checkpoints import Say
from himac_lite.runs.folder import Run
from himac_lite.runs.training import base_score, load_trained, make_task, mode_of
from himac_lite.tasks import Task
from himac_lite.tasks.registry import lengths
from himac_lite.types import Item


def score_run(
    run: Run, levels: Sequence[Item], task: Task | None = None, *, mode: str | None = None,
    hierarchy: Hierarchy | str | None = None, checkpoint: str = "last", say: Say = print,
) -> dict[str, Score]:  # fmt: skip
    """``trained``, ``base`` and ``random`` on these levels, greedy, as at the end of training.

    levels: items of the run's task, or of another one, `task`. mode: ``himac``, ``flat`` or ``random`` (then all three
    are the random policy's); by default that of the run. hierarchy: the variant that the run was trained with, as a
    value or ``FILE.py:NAME``; needed for a variant of your own only. checkpoint: ``last`` or ``best``. say: called
    with a line for a damaged checkpoint, a changed file and a changed base model.
    Raises `RunError` if the run's variant or task is your own and is not given, or `hierarchy` is another one.
    """
    task = task or make_task(run.config, run.world().value)
    if hierarchy is None and mode in ("flat", "random"):  # no blueprint is executed, so its rules do not matter
        variant = Hierarchy()
    else:
        variant = run.hierarchy(hierarchy, say).value
    mode, rules = mode or mode_of(variant), variant.test_rules
    if mode == "random":
        return dict.fromkeys(("trained", "base", "random"), evaluate(None, task, levels, "random"))
    one_thread_a_worker()
    policy = load_trained(run, checkpoint, say)
    list(lengths(task, levels, say))  # for the scores by length
    random = evaluate(None, task, levels, "random")
    trained = evaluate(policy, task, levels, mode, rules=rules)
    return {"trained": trained, "base": base_score(policy, task, levels, mode, rules), "random": random}
