"""Checks of a learner's function, with a diagnosis of the likely mistake.

    check_group_advantage(group_advantage)   # ✓, ○ (not started yet), or CheckFailed with the diagnosis

One module per notebook; `checking` is what they share. The result of a check is true only if the exercise is passed.
"""

from __future__ import annotations

from himac_lite.exercises.advantages import check_credit, check_leave_one_out, check_useful_group
from himac_lite.exercises.blueprints import check_active_subgoals, check_honest_return, check_straight_push
from himac_lite.exercises.checking import CheckFailed, Exercise, Mistake, Result
from himac_lite.exercises.coevolution import check_best_blueprint, check_learning_rate, check_wilson
from himac_lite.exercises.four_bit import check_merged, check_nf4_bytes, check_quantise
from himac_lite.exercises.loss import check_clipped_surrogate, check_surrogate_gradient, check_token_mean
from himac_lite.exercises.quickstart import check_group_advantage, check_trained_tokens
from himac_lite.exercises.rollouts import check_constrained_log_prob, check_next_token_log_probs, check_sampled_log_prob
from himac_lite.exercises.sokoban import check_at_least_one, check_dead_corner, check_outcome
from himac_lite.exercises.variants import check_median_advantage, check_sign_flip, check_steps_to, check_who_learns
from himac_lite.exercises.worlds import check_latched, check_read_action, check_shop_reward

__all__ = [
    "CheckFailed", "Exercise", "Mistake", "Result",
    "check_group_advantage", "check_trained_tokens",
    "check_outcome", "check_dead_corner", "check_at_least_one",
    "check_straight_push", "check_active_subgoals", "check_honest_return",
    "check_leave_one_out", "check_credit", "check_useful_group",
    "check_sampled_log_prob", "check_constrained_log_prob", "check_next_token_log_probs",
    "check_clipped_surrogate", "check_surrogate_gradient", "check_token_mean",
    "check_best_blueprint", "check_learning_rate", "check_wilson",
    "check_quantise", "check_nf4_bytes", "check_merged",
    "check_sign_flip", "check_steps_to", "check_median_advantage", "check_who_learns",
    "check_shop_reward", "check_read_action", "check_latched",
]  # fmt: skip
