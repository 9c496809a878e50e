"""Every check of notebooks 01–09: an independent right answer, an untouched stub, wrong answers and their words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from himac_lite import exercises
from himac_lite.exercises import CheckFailed


def outcome(ahead, beyond):
    if ahead == "#" or (ahead in "$*" and beyond in "#$*"):
        return "blocked"
    return "pushed" if ahead in "$*" else "moved"


def dead_corner(rows, cell):
    r, c = cell
    if rows[r][c] in ".*+":
        return False
    corners = [((-1, 0), (0, -1)), ((-1, 0), (0, 1)), ((1, 0), (0, -1)), ((1, 0), (0, 1))]
    return any(all(rows[r + dr][c + dc] == "#" for dr, dc in pair) for pair in corners)


def straight_push(box, direction, target):
    dr, dc = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[direction]
    return any(target == (box[0] + n * dr, box[1] + n * dc) for n in range(1, 10))


def active_subgoals(tokens, budget):
    goal, used, out = 0, 0, []
    for token in tokens:
        out.append(goal)
        if token == "<sub_done>" or used == budget - 1:
            goal, used = goal + 1, 0
        else:
            used += 1
    return out


def honest_return(success, steps, max_steps, penalty):
    return (1 if success else 0) - penalty * (steps if success else max_steps)


def leave_one_out(returns):
    return [r - np.mean([*returns[:i], *returns[i + 1 :]]) for i, r in enumerate(returns)]


def credit(return_pg, return_pn, eps):
    out = []
    for g, n in zip(return_pg, return_pn, strict=True):
        out.append([(r - row.mean()) / (row.std() + eps) for row in (g, n) for r in row])
    return out


def useful_group(p, n):
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(1, n))


def sampled(logits, ids, temperature):
    p = np.exp(logits / temperature)
    return np.log([row[i] / row.sum() for row, i in zip(p, ids, strict=True)])


def constrained(logits, allowed, token):
    return logits[token] - math.log(sum(math.exp(logits[i]) for i in allowed))


def next_token(logits, ids):
    return sampled(logits[:-1], ids[1:], 1.0)


def surrogate_gradient(logp, behaviour, advantage, clip):
    """By differences of the surrogate, as a learner would check it."""

    def j(x):
        rho = np.exp(x - behaviour)
        return np.minimum(rho * advantage, np.clip(rho, 1 - clip, 1 + clip) * advantage)

    return (j(logp + 1e-6) - j(logp - 1e-6)) / 2e-6


def token_mean(x, mask):
    kept = [v for row, m in zip(x, mask, strict=True) for v, keep in zip(row, m, strict=True) if keep]
    return sum(kept) / len(kept)


def best_blueprint(return_pg):
    return [list(row).index(max(row)) for row in return_pg]


def learning_rate(spent, start, floor):
    return max(start * floor, start - start * spent)


def wilson(k, n):
    p, z = k / n, 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def quantise(weights, codes):
    scale = max(abs(w) for w in weights)
    return [scale * min(codes, key=lambda c: abs(w / scale - c)) for w in weights]


def nf4_bytes(weights, block):
    return (4 * weights + 32 * weights / block) / 8


def merged(w, a, b, alpha):
    return w + sum(np.outer(b[:, i], a[i]) for i in range(len(a))) * alpha / len(a)


def all_sums(differences):
    sums = [0.0]
    for d in differences:
        sums = [s + e for s in sums for e in (d, -d)]
    return sums


def sign_flip(differences):
    sums = all_sums(differences)
    return sum(abs(s) >= abs(sum(differences)) - 1e-9 for s in sums) / len(sums)


def first_time(spent, success, threshold):
    """By walking along the curve in small steps."""
    at = np.linspace(spent[0], spent[-1], 300_001)
    return at[np.argmax(np.interp(at, spent, success) >= threshold - 1e-12)]


def shop_reward(r_type, hits, option_hits, fits, attributes, options):
    return r_type * sum([hits, option_hits, 1 if fits else 0]) / sum([attributes, options, 1])


def read_action(text):
    """Without an expression: the last bracket that closes, and the last that opens before it with something between."""
    close = text.rfind("]")
    opened = text.rfind("[", 1, max(1, close - 1))
    return (text[:opened], text[opened + 1 : close].lower()) if opened > 0 else ()


def latched(won):
    return [sum(won[: i + 1]) > 0 for i in range(len(won))]


COURSE = {
    "check_outcome": (
        outcome,
        (lambda a, b: "pushed" if a in "$*" else outcome(a, b), "every box is pushed"),
        (lambda a, b: outcome("$" if a == "$" else " " if a == "*" else a, b), r"\(\*\) is a box too"),
    ),
    "check_dead_corner": (
        dead_corner,
        (lambda rows, cell: dead_corner([row.replace(".", " ") for row in rows], cell), "that is a target"),
        (
            lambda rows, c: (
                rows[c[0]][c[1]] != "."
                and [rows[c[0] - 1][c[1]], rows[c[0] + 1][c[1]], *rows[c[0]][c[1] - 1 : c[1] + 2 : 2]].count("#") > 1
            ),
            "corridor",
        ),
    ),
    "check_at_least_one": (
        lambda p, n: sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(1, n + 1)),
        (lambda p, n: p * n, "n·p counts"),
        (lambda p, n: (1 - p) ** n, "none succeeds"),
    ),
    "check_straight_push": (
        straight_push,
        (lambda b, d, t: b != t and (b[0] == t[0]) == (d in ("left", "right")) and (b[0] == t[0] or b[1] == t[1]),
         "on which side"),
        (lambda b, d, t: b == t or straight_push(b, d, t), "zero steps is not a push"),
    ),
    "check_active_subgoals": (
        active_subgoals,
        (lambda tokens, budget: active_subgoals(tokens, 10**6), "budget has no effect"),
        (
            lambda ts, n: [k + (t == "<sub_done>") for k, t in zip(active_subgoals(ts, n), ts, strict=True)],
            "belongs to the sub-goal that it ends",
        ),
    ),
    "check_honest_return": (
        honest_return,
        (lambda success, steps, limit, cost: success - cost * steps, "failing early is cheap"),
        (lambda success, steps, limit, cost: success - cost * limit, "success pays for all"),
    ),
    "check_leave_one_out": (
        leave_one_out,
        (lambda r: [x - sum(r) / len(r) for x in r], "including the member itself"),
        (lambda r: [x - (sum(r) - x) / len(r) for x in r], "there are N − 1 others"),
    ),
    "check_credit": (
        credit,
        (
            lambda g, n, eps: np.hstack([(r - g.mean(1)[:, None]) / (g.std(1)[:, None] + eps) for r in (g, n)]),
            "compared with the blueprints' mean",
        ),
        (lambda g, n, eps: np.hstack([(r - r.mean()) / (r.std() + eps) for r in (g, n)]), "whole array"),
    ),
    "check_useful_group": (
        useful_group,
        (lambda p, n: 1 - (1 - p) ** n, "all members succeed"),
        (lambda p, n: p**n + (1 - p) ** n, "teaches nothing"),
    ),
    "check_sampled_log_prob": (
        sampled,
        (lambda z, ids, t: sampled(z, ids, 1.0), "no effect"),
        (lambda z, ids, t: sampled(z, ids, 1 / t), "multiply by the temperature"),
    ),
    "check_constrained_log_prob": (
        constrained,
        (lambda z, allowed, token: constrained(z, range(len(z)), token), "whole vocabulary"),
        (lambda z, allowed, token: math.exp(constrained(z, allowed, token)), "its logarithm"),
    ),
    "check_next_token_log_probs": (
        next_token,
        (lambda z, ids: sampled(z, ids, 1.0), "has just read"),
        (lambda z, ids: sampled(z[1:], ids[:-1], 1.0), "wrong way"),
    ),
    "check_surrogate_gradient": (
        surrogate_gradient,
        (lambda new, old, a, c: np.exp(new - old) * a, "ever cut off"),
        (lambda new, old, a, c: np.where(abs(np.exp(new - old) - 1) > c, 0, np.exp(new - old) * a), "both sides"),
    ),
    "check_token_mean": (
        token_mean,
        (lambda x, m: np.mean([row[keep].mean() for row, keep in zip(x, m, strict=True)]), "each sequence first"),
        (lambda x, m: np.mean(x), "masked out are in the mean"),
    ),
    "check_best_blueprint": (
        best_blueprint,
        (lambda r: [max(row) for row in r], "return its index"),
        (lambda r: [int(np.argmin(row)) for row in r], "worst"),
    ),
    "check_learning_rate": (
        learning_rate,
        (lambda spent, start, floor: start - start * spent, "falls to 0"),
        (lambda spent, start, floor: max(floor, start * (1 - spent)), "share"),
    ),
    "check_wilson": (
        wilson,
        (lambda k, n: (k / n - 1.96 * math.sqrt(k * (n - k) / n**3), k / n + 1.96 * math.sqrt(k * (n - k) / n**3)),
         "no width"),
        (lambda k, n: wilson(k, n)[::-1], "upper end"),
    ),
    "check_quantise": (
        quantise,
        (lambda w, codes: [min(codes, key=lambda c: abs(x - c)) for x in w], "scale is missing"),
        (lambda w, codes: np.array(quantise(w, codes)) / abs(w).max(), "never multiply back"),
    ),
    "check_nf4_bytes": (
        nf4_bytes,
        (lambda n, block: n / 2, "keeps its scale"),
        (lambda n, block: 4 * n + 32 * n / block, "are bits"),
    ),
    "check_merged": (
        merged,
        (lambda w, a, b, alpha: w + b @ a, "scale alpha / r is missing"),
        (lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T, "transposed"),
    ),
    "check_sign_flip": (
        sign_flip,
        (lambda d: sum(x >= sum(d) - 1e-9 for x in all_sums(d)) / 2 ** len(d), "one side only"),
        (lambda d: sum(abs(x) > abs(sum(d)) + 1e-9 for x in all_sums(d)) / 2 ** len(d), "exactly as large"),
        (lambda d: sign_flip(d) * 2 ** len(d), "divide by all"),
    ),
    "check_steps_to": (
        first_time,
        (lambda x, y, level: next(a for a, b in zip(x, y, strict=True) if b >= level), "first \\*point\\* above"),
        (lambda x, y, level: max([0.0, *(a for a in x if a < first_time(x, y, level))]), "last point below"),
    ),
    "check_median_advantage": (
        lambda r: np.array([[x - sorted(row)[len(row) // 2] for x in row] for row in r]),
        (lambda r: r - np.mean(r, 1)[:, None], "mean of the group"),
        (lambda r: r - np.median(r), "all levels together"),
    ),
    "check_who_learns": (
        lambda i, p, e: (["planner"] * p + ["executor"] * e)[i % (p + e)],
        (lambda i, p, e: ["planner", "executor"][i % 2], "alternate every iteration"),
        (lambda i, p, e: "planner" if i < p else "executor", "comes only once"),
    ),
    "check_shop_reward": (
        shop_reward,
        (lambda r, a, o, p, n, m: r * (a + o + p) / (n + m), "denominator"),
        (lambda r, a, o, p, n, m: (a + o + p) / (n + m + 1), "wrong kind of product"),
    ),
    "check_read_action": (
        read_action,
        (lambda text: tuple(part.lower() for part in read_action(text)), "does not know the verb Click"),
        (lambda text: read_action(text) if text.endswith("]") else (), "after|follows the last bracket"),
    ),
    "check_latched": (
        latched,
        (list, "if the next action spoils it"),
        (lambda won: [any(won)] * len(won), "before the first win"),
    ),
}  # fmt: skip


def test_every_check_has_its_place():
    elsewhere = {"check_group_advantage", "check_trained_tokens", "check_clipped_surrogate"}  # test_exercises.py
    assert {name for name in exercises.__all__ if name.startswith("check_")} == {*COURSE, *elsewhere}


@pytest.mark.parametrize("name", COURSE)
def test_the_right_answer_passes_and_a_stub_is_not_an_error(name):
    def stub(*_):
        raise NotImplementedError

    check, (right, *_) = getattr(exercises, name), COURSE[name]
    assert check(right)
    assert not check(stub)
    assert [repr(check(answer))[0] for answer in (right, stub)] == ["✓", "○"]


@pytest.mark.parametrize("name", COURSE)
def test_two_wrong_answers_get_a_message_of_their_own(name):
    check, (_, *wrong) = getattr(exercises, name), COURSE[name]
    told = []
    for answer, words in wrong:
        with pytest.raises(CheckFailed, match=words) as caught:
            check(answer)
        told.append(str(caught.value).splitlines()[0])
    assert len(set(told)) == len(told) >= 2
