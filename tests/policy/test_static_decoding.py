"""Decoding at fixed shapes: the same tokens and log-probabilities as with a growing cache, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_decoding import PAD, conversation, lively_model, random_prompts

from himac_lite.config import Rollout, Train, validate
from himac_lite.errors import ConfigError
from himac_lite.policy import static_decoding
from himac_lite.policy.decoding import Growing, Stream, decode
from himac_lite.policy.static_decoding import StaticDecoding, power_of_two, rounded
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import GREEDY, Role, Sampling


def family(kind: str) -> Any:
    """A lively two-layer model: of the shipped kind, or with fewer key heads than query heads, as hub models have."""
    if kind in ("sdpa", "eager"):
        return lively_model(kind)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(family("Qwen2"), lora).eval()
    import transformers

    torch.manual_seed(0)
    shape = {
        "vocab_size": 448, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**shape, **({"head_dim": 16} if kind == "Qwen3" else {}))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return model


class Noted(StaticDecoding):
    """Notes (rows, tokens, width) of every step."""

    def __init__(self, capture: Any = None) -> None:
        super().__init__(capture)
        self.shapes: list[tuple[int, int, int]] = []

    def compute(self, step: Any) -> torch.Tensor:
        self.shapes.append((*step.mask.shape, step.ids.shape[1]))
        return super().compute(step)


def same(ours: list[Stream], wanted: list[Stream]) -> None:
    assert [s.ids for s in ours] == [s.ids for s in wanted]
    assert [s.sampled for s in ours] == [s.sampled for s in wanted]
    for a, b in zip(ours, wanted, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-4)


@pytest.mark.parametrize(("n", "least", "wanted"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (64, 8, 64), (65, 8, 128)])
def test_powers_of_two(n, least, wanted):
    assert power_of_two(n, least) == wanted


def test_widths_are_rounded_to_three_binary_digits():
    # 1001₂ has four digits: up to 1010₂; 1025 = 10000000001₂ up to 1010₂ · 2⁷.
    assert [rounded(n) for n in (1, 7, 8, 9, 15, 17, 33, 1024, 1025)] == [1, 7, 8, 10, 16, 20, 40, 1024, 1280]
    assert all(n <= rounded(n) <= 1.25 * n for n in range(1, 3000))


TALK: dict[str, Callable[[int, int], int]] = {
    "tokens": lambda row, turn: 0,
    "even": lambda row, turn: 4,
    "mixed": lambda row, turn: (5 * row + 3 * turn) % 12,  # 0 to 11 forced tokens, different in every row
    "long": lambda row, turn: 90 if turn == row % 5 else 1,  # more at once than is recorded, and than there is room
}


@pytest.mark.parametrize(
    ("kind", "talk", "allowed"),
    [
        ("sdpa", "tokens", None), ("sdpa", "even", [3, 50, 51, 200, 439]), ("eager", "mixed", None),
        ("Qwen2", "mixed", [3, 50, 51, 200, 439]), ("Qwen2", "long", None), ("Qwen3", "long", None),
    ],
)  # fmt: skip
def test_greedy_tokens_and_log_probs_are_those_of_the_growing_cache(kind, talk, allowed):
    model = family(kind)
    prompts = random_prompts(1, (3, 9, 21, 30, 30, 60, 1))
    prompts = [p for p in prompts for _ in range(3)]  # groups of three share a prompt
    limits = None if allowed is None else torch.tensor(allowed)

    def play(context: Any) -> list[Stream]:
        react = conversation(2, TALK[talk], lambda row, turn: turn >= 1 + row % 9)  # rows end at different times
        return decode(model, prompts, react, pad_id=PAD, allowed=limits, temperature=0, max_sampled=12, context=context)

    static = Noted()
    same(play(static.context), play(Growing))
    # The paths that this is about were taken: 21 rows in 32, then 16 and 8; a room that grew beyond 60 + 64 tokens.
    assert [*dict.fromkeys(rows for rows, _, _ in static.shapes)] == [32, 16, 8]
    assert (static.room.tokens > 128) == (talk in ("mixed", "long"))
    # A second rollout in the room that the first one left is the same again.
    same(play(static.context), play(Growing))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_tokens_are_those_of_the_growing_cache(temperature):
    model, prompts = family("Qwen2"), [p for p in random_prompts(4, (6, 25, 13)) for _ in range(8)]

    def play(context: Any, rows: int = 128) -> list[Stream]:
        react = conversation(5, lambda row, turn: 3, lambda row, turn: turn >= row % 7)
        return decode(
            model, prompts, react, pad_id=PAD, temperature=temperature, rng=np.random.default_rng(6), max_sampled=8,
            max_rows=rows, context=context,
        )  # fmt: skip

    static = StaticDecoding()
    same(play(static.context), play(Growing))
    wanted = {tuple(s.ids) for s in play(static.context)}
    assert {tuple(s.ids) for s in play(static.context, rows=5)} <= wanted | {tuple(s.ids) for s in play(Growing, 5)}


def test_a_prompt_is_read_once_and_in_parts_that_fit(monkeypatch):
    model, prompts = family("sdpa"), [p for p in random_prompts(3, (5, 9, 9, 14, 20)) for _ in range(4)]
    read: list[tuple[int, int]] = []
    real = Growing.read

    def noted(self: Growing, some: Any, pick: Any) -> torch.Tensor:
        read.append((len(some), max(map(len, some))))
        return real(self, some, pick)

    monkeypatch.setattr(Growing, "read", noted)

    def play(context: Any) -> list[Stream]:
        return decode(model, prompts, lambda row, token: [4], pad_id=PAD, temperature=0, max_sampled=5, context=context)

    wanted = play(Growing)
    monkeypatch.setattr(static_decoding, "PREFILL", 40)  # two prompts of 20 tokens at a time
    read.clear()
    same(play(StaticDecoding().context), wanted)
    assert read == [(2, 9), (2, 14), (1, 20)]


# ---- recording ---------------------------------------------------------------------------------------------------


def in_one_graph(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """In place of a CUDA graph: the step as one graph of torch operations. Reading a value on the host breaks it."""
    return torch.compile(run, fullgraph=True, dynamic=False, backend="eager")


@pytest.mark.parametrize("kind", ["sdpa", "lora"])
def test_a_step_is_one_graph_that_asks_the_device_nothing(kind):
    model, prompts = family(kind), random_prompts(7, (5, 12, 12, 30))

    def play(context: Any) -> list[Stream]:
        react = conversation(2, lambda row, turn: 2, lambda row, turn: False)
        return decode(model, prompts, react, pad_id=PAD, temperature=0, max_sampled=6, context=context)

    torch._dynamo.reset()
    static = StaticDecoding(in_one_graph)
    same(play(static.context), play(Growing))
    assert static.refused == ""
    (step,) = static._steps.values()
    assert step.calls == 5
    assert step.recorded is not None
    same(play(static.context), play(Growing))  # what was recorded, once more
    assert step.calls == 10


class Recorder:
    """Counts recordings and replays; the step itself is computed as usual."""

    def __init__(self) -> None:
        self.made = self.replays = 0

    def __call__(self, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.made += 1

        def replay() -> torch.Tensor:
            self.replays += 1
            return run()

        return replay


def once(model: Any, static: StaticDecoding, adapter: str = "", n: int = 4) -> list[Stream]:
    return decode(
        model, [[5, 6, 7]] * 4, lambda row, token: [], pad_id=PAD, temperature=0, max_sampled=n,
        context=lambda *given: static.context(*given, adapter),
    )  # fmt: skip


def test_a_shape_is_recorded_at_its_second_step_for_each_adapter_and_place_of_the_weights():
    model, recorder = family("sdpa"), Recorder()
    static = StaticDecoding(recorder)
    once(model, static)  # a prompt and three steps: computed, recorded and replayed, replayed
    assert (recorder.made, recorder.replays) == (1, 2)
    once(model, static)
    assert (recorder.made, recorder.replays) == (1, 5)
    once(model, static, "executor")
    assert (recorder.made, recorder.replays) == (2, 7)
    with torch.no_grad():
        next(model.parameters()).mul_(1.0)  # in place, as an optimizer does: what was recorded reads it
    once(model, static)
    assert recorder.made == 2
    model.get_input_embeddings().weight.data = model.get_input_embeddings().weight.data.clone()  # elsewhere
    once(model, static)
    assert recorder.made == 3


def test_wide_steps_are_not_recorded_and_the_oldest_shape_makes_way(monkeypatch):
    model, recorder = family("sdpa"), Recorder()
    monkeypatch.setattr(static_decoding, "SHAPES", 2)
    static = StaticDecoding(recorder)
    for width in (70, 70, 1, 1, 2, 2, 1, 3, 3, 1, 2):  # at 3 the shape of width 2 is the oldest
        decode(
            model, [[5, 6]], lambda row, token, w=width: [9] * (w - 1), pad_id=PAD, temperature=0, max_sampled=2,
            context=static.context,
        )  # fmt: skip
    assert recorder.made == 3
    assert [key[3] for key in static._steps] == [1, 2]


def test_what_cannot_be_recorded_is_computed_and_said_once(recwarn):
    def fails(run: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    model = family("sdpa")
    static, wanted = StaticDecoding(fails), once(model, StaticDecoding())
    same(once(model, static), wanted)
    same(once(model, static), wanted)
    (said,) = [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
    reason = "operation not permitted when stream is capturing"
    assert str(said.message) == f"decoding continues without CUDA graphs: {reason}"
    assert isinstance(static.context(model, PAD), Growing)


def test_a_model_that_cannot_keeps_the_growing_cache(monkeypatch, recwarn):
    model = family("sdpa")
    monkeypatch.setattr(type(model), "_can_compile_fullgraph", False)
    static = StaticDecoding()
    same(once(model, static), decode(model, [[5, 6, 7]] * 4, lambda *_: [], pad_id=PAD, temperature=0, max_sampled=4))
    assert not static.room.keys
    assert "LlamaForCausalLM" in str(recwarn.pop(RuntimeWarning).message)


# ---- in a policy -------------------------------------------------------------------------------------------------


def test_a_policy_plays_the_same_with_either_cache(new_policy, toy_levels):
    task = SokobanTask(max_steps=6)

    def played(how: str) -> list[Any]:
        policy = new_policy(static_cache=how)
        assert (policy.static is not None) == (how == "on")
        plans = Arena(policy, task).blueprints(toy_levels, 3, Sampling(1.0, np.random.default_rng(0)))
        jobs = [(level, plan) for level, group in zip(toy_levels, plans, strict=True) for _, plan in group]
        followed = Arena(policy, task).execute(jobs, Sampling(1.0, np.random.default_rng(1)))
        return [*followed, *Arena(policy, task).play_flat(toy_levels * 3)]

    for ours, wanted in zip(played("on"), played("off"), strict=True):
        assert (ours.moves, ours.blueprint) == (wanted.moves, wanted.blueprint)
        assert [s.ids for s in ours.segments] == [s.ids for s in wanted.segments]
        for a, b in zip(ours.segments, wanted.segments, strict=True):
            assert a.logp == pytest.approx(b.logp, abs=1e-4)


def test_each_role_has_its_own_recorded_steps(new_policy):
    from dataclasses import replace

    from himac_lite.policy.loading import LoraSettings, load_policy

    plain = new_policy()
    policy = load_policy(plain.name, LoraSettings(4, 8, each_role=True), device="cpu", static_cache="on")
    seen: list[Any] = []
    for role in (Role.PLANNER, Role.EXECUTOR):
        policy.act_as(role)
        policy.decode([[5, 6]], lambda *_: [], allowed=None, sampling=GREEDY, max_sampled=2)
        seen = [key[0] for key in policy.static._steps]
    assert seen == ["default", "executor"]
    assert replace(policy, pictures=object())._context(policy.twin, 0).__class__ is Growing


def test_the_setting_is_checked():
    validate(Train(rollout=Rollout(static_cache="off")))
    with pytest.raises(ConfigError, match="static_cache must be auto, on or off, not 'yes'"):
        validate(Train(rollout=Rollout(static_cache="yes")))
