"""What a run scores on any levels, beside its base and the random policy, under the rules that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from himac_lite.errors import ConfigError, RunError
from himac_lite.hierarchy import Hierarchy, preset
from himac_lite.hierarchy.named import played_as
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.rollout.evaluate import Score, evaluate
from himac_lite.runs.folder import Run
from himac_lite.runs.training import base_score, load_trained, make_task, mode_of
from himac_lite.tasks import Task
from himac_lite.types import Item


def trained_as(run: Run) -> Hierarchy:
    """A hierarchy that plays as the run was trained. Raises `RunError` if its manifest cannot say how."""
    own = run.manifest.get("hierarchy")
    if own is None:
        return preset(run.config.variant)
    try:
        return played_as(own)
    except ConfigError as error:
        raise RunError(
            f"{run.folder} was trained with a hierarchy of its own, and {error}; score it in Python: "
            "himac_lite.evaluation.scores.score_run(run, levels, hierarchy=THE_SAME)"
        ) from None


def score_run(
    run: Run, levels: Sequence[Item], task: Task | None = None, *, mode: str | None = None,
    hierarchy: Hierarchy | None = None, checkpoint: str = "last", say: Callable[[str], None] = lambda _: None,
) -> dict[str, Score]:  # fmt: skip
    """``trained``, ``base`` and ``random`` on these levels, greedy, as they are scored at the end of a training.

    levels: items of the run's task, such as those of `load_levels`, or of another one, `task`. mode: ``himac``,
    ``flat`` or ``random`` (the random policy stands in all three places); by default as the run was trained.
    hierarchy: the one that the run was trained with, needed only where the manifest cannot say how it plays.
    checkpoint: ``last`` or ``best``. say: is told of damaged checkpoints.
    Raises `RunError` if the rules of the run are not known, or `hierarchy` is not the one it was trained with.
    """
    task = task or make_task(run.config)
    if hierarchy is not None:
        run.refuse_another(hierarchy)
    elif mode in ("flat", "random"):  # where no blueprint is carried out, nobody asks how
        hierarchy = Hierarchy()
    else:
        hierarchy = trained_as(run)
    mode, rules = mode or mode_of(hierarchy), hierarchy.rules
    random = evaluate(None, task, levels, "random")
    if mode == "random":
        return dict.fromkeys(("trained", "base", "random"), random)
    one_thread_a_worker()
    policy = load_trained(run, checkpoint, say)
    trained = evaluate(policy, task, levels, mode, rules=rules)
    return {"trained": trained, "base": base_score(policy, task, levels, mode, rules), "random": random}
