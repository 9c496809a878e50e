"""Checks: the right answer passes, each plausible wrong one gets a message of its own."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import numpy as np
import pytest

from himac_lite import exercises
from himac_lite.errors import HimacError
from himac_lite.exercises import CheckFailed, check_clipped_surrogate, check_group_advantage, check_trained_tokens


def right_advantage(returns, eps):
    return [(r - sum(returns) / len(returns)) / (np.std(returns) + eps) for r in returns]


def right_mask(kinds, phase):
    return [kind in (("plan", "end") if phase == "A" else ("action", "sub_done")) for kind in kinds]


def right_loss(logp, behaviour, advantage, clip):
    out = []
    for new, old, a in zip(logp, behaviour, advantage, strict=True):
        rho = np.exp(new) / np.exp(old)
        out.append(-min(rho * a, min(max(rho, 1 - clip), 1 + clip) * a))
    return out


CHECKS = {
    check_group_advantage: right_advantage,
    check_trained_tokens: right_mask,
    check_clipped_surrogate: right_loss,
}


@pytest.mark.parametrize(("check", "answer"), CHECKS.items(), ids=lambda f: getattr(f, "name", ""))
def test_the_right_answer_passes(check, answer):
    assert check(answer)
    assert repr(check(answer)).startswith("✓ ")


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (check_group_advantage, lambda r, eps: (r - r.mean()) / (r.var() + eps), "dividing by the variance"),
        (check_group_advantage, lambda r, eps: (r - r.mean()) / (r.std(ddof=1) + eps), "N − 1"),
        (check_group_advantage, lambda r, eps: r - r.mean(), "do not divide"),
        (check_group_advantage, lambda r, eps: (r - r.mean()) / r.std(), "ε has no effect"),
        (check_group_advantage, lambda r, eps: (r - r.mean()) / np.sqrt(r.var() + eps), "under the root"),
        (check_group_advantage, lambda r, eps: r / (r.std() + eps), "do not subtract the mean"),
        (check_group_advantage, lambda r, eps: (r.mean() - r) / (r.std() + eps), "sign"),
        (check_group_advantage, lambda r, eps: (r - r.max()) / (r.std() + eps), "best return"),
        (check_trained_tokens, lambda kinds, phase: [k != "prompt" for k in kinds], "everything but the prompt"),
        (check_trained_tokens, lambda k, p: [x in ("plan", "end", "action", "sub_done") for x in k], "in both phases"),
        (
            check_trained_tokens,
            lambda k, p: [x in (("plan", "end") if p == "A" else ("action",)) for x in k],
            "<sub_done> is",
        ),
        (check_trained_tokens, lambda kinds, phase: right_mask(kinds, "B" if phase == "A" else "A"), "swapped"),
        (check_trained_tokens, lambda k, p: [not x for x in right_mask(k, p)], "inverted"),
        (
            check_trained_tokens,
            lambda k, p: [x in (("plan", "end") if p == "A" else ("action", "observation", "sub_done")) for x in k],
            "observations",
        ),
        (check_clipped_surrogate, lambda *a: [-x for x in right_loss(*a)], "sign is missing"),
        (
            check_clipped_surrogate,
            lambda new, old, a, c: -np.clip(np.exp(new - old), 1 - c, 1 + c) * a,
            "you only clip",
        ),
        (check_clipped_surrogate, lambda new, old, a, c: -np.exp(new - old) * a, "nothing is clipped"),
        (check_clipped_surrogate, lambda new, old, a, c: right_loss(old, new, a, c), "upside down"),
        (
            check_clipped_surrogate,
            lambda new, old, a, c: -np.maximum(np.exp(new - old) * a, np.clip(np.exp(new - old), 1 - c, 1 + c) * a),
            "the larger of the two",
        ),
    ],
)
def test_a_wrong_answer_is_diagnosed(check, answer, words):
    with pytest.raises(CheckFailed, match=words) as caught:
        check(answer)
    assert "expected" in str(caught.value)
    assert isinstance(caught.value, AssertionError | HimacError)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda r, eps: None, "is a `return` missing"),
        (lambda r, eps: 1 / 0, "raises ZeroDivisionError"),
        (lambda r: r, "raises TypeError"),
        (lambda r, eps: "high", "not str"),
        (lambda r, eps: (r - r.mean())[:1], r"shape is \(1,\)"),
        (lambda r, eps: np.full(len(r), np.nan), "divide by zero"),
        (3.0, "pass the function itself"),
    ],
)
def test_answers_that_are_no_answer(answer, words):
    with pytest.raises(CheckFailed, match=words):
        check_group_advantage(answer)


def test_a_function_may_not_change_its_arguments():
    def greedy(returns, eps):
        returns -= returns.mean()
        return returns / (returns.std() + eps)

    with pytest.raises(CheckFailed, match="changes its own arguments"):
        check_group_advantage(greedy)


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.name)
def test_an_exercise_not_started_is_not_passed_and_not_an_error(check, capsys):
    def my_answer(*_):
        raise NotImplementedError

    for stub in (my_answer, lambda *_: ...):
        assert not check(stub)
        assert repr(check(stub)).startswith(f"○ {check.name}: not started yet.")
    assert "Complete `my_answer` above" in repr(check(my_answer))
    assert "False" not in capsys.readouterr().out + repr(check(my_answer))  # what a cell shows


ALL = [
    value
    for module in pkgutil.iter_modules(exercises.__path__)
    for value in vars(import_module(f"himac_lite.exercises.{module.name}")).values()
    if isinstance(value, exercises.Exercise)
]


def test_the_course_has_its_exercises():
    """Each is handed to the notebooks by one public check."""
    checks = [name for name in exercises.__all__ if name.startswith("check_")]
    assert all("answer(" in getattr(exercises, name).__doc__ for name in checks)  # `help(check_…)` shows the task
    assert len(checks) == len(ALL) >= 20
    assert len({exercise.name for exercise in ALL}) == len(ALL)


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_every_known_mistake_is_wrong_and_tells_its_own_story(exercise):
    """A mistake that gave the right numbers, or another one's, would never be named."""
    assert len({m.why for m in exercise.mistakes}) == len(exercise.mistakes) >= 2
    for mistake in exercise.mistakes:
        with pytest.raises(CheckFailed) as caught:
            exercise(mistake.answer)
        assert mistake.why in str(caught.value)


def test_a_notebook_shows_the_diagnosis_alone():
    assert CheckFailed("group advantage: why")._render_traceback_() == ["✗ group advantage: why"]
