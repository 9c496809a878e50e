"""Decoding: `generate` and plain forward passes of the same model as second opinion, and the laws of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from himac_lite.config import Pretrain
from himac_lite.policy import decoding as generation
from himac_lite.policy.decoding import Stream, decode, sample
from himac_lite.pretraining.driver import make_model

PAD = 0


def lively_model(attention: str = "sdpa", seed: int = 0) -> Any:
    """Fresh weights, ten times larger: the small ones of a fresh model repeat one token for ever."""
    model = make_model(Pretrain(width=64, layers=2, heads=2, seed=seed)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(10)
    model.set_attn_implementation(attention)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return lively_model()


def random_prompts(seed: int, lengths: tuple[int, ...]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 440, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def plain_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """[T, V] of one unpadded sequence in one pass, no cache."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of every forward pass that `decode` makes, in order."""
    seen: list[tuple[int, int]] = []
    real = generation.logits_of

    def counted(model: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(tuple(ids.shape))
        return real(model, ids, *rest)

    monkeypatch.setattr(generation, "logits_of", counted)
    return seen


# ---- against transformers' own generate --------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_greedy_equals_generate_token_for_token(seed, attention, batch_sizes):
    model = lively_model(attention, seed)
    prompts = random_prompts(seed, (5, 40, 17, 17, 1, 28, 33, 9))
    prompts += [prompts[1], prompts[2], prompts[1], prompts[4]]  # equal prompts: encoded once
    ends = list(range(0, 448, 16))  # any of these ends a row: rows end at different times
    streams = decode(
        model, prompts, lambda row, token: None if token in ends else [], pad_id=PAD, temperature=0, max_sampled=40
    )

    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    wanted = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=40, eos_token_id=ends, pad_token_id=PAD
    )[:, width:].tolist()
    for stream, row in zip(streams, wanted, strict=True):
        stop = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        assert stream.ids == row[:stop]
        assert stream.sampled == [True] * stop

    # The paths that this is about were taken: 12 prompts of which 8 differ, rows ended early and were dropped.
    rows = [r for r, _ in batch_sizes]
    assert rows[0] == 8
    assert rows[-1] < 12
    assert len({len(s.ids) for s in streams}) > 2


def test_equal_prompts_are_encoded_once_and_rows_that_end_are_dropped(model, batch_sizes):
    prompts = [[7, 8, 9]] * 3 + [[5]] * 5
    counts = [0] * 8

    def react(row: int, token: int) -> list[int] | None:
        counts[row] += 1
        return None if counts[row] > row else []  # row r ends with its token r + 1

    streams = decode(model, prompts, react, pad_id=PAD, temperature=0, max_sampled=20)
    assert [len(s.ids) for s in streams] == [1, 2, 3, 4, 5, 6, 7, 8]
    # Prefill of the 2 different prompts, padded to 3. After token 1, 7 of 8 rows run: 7/8 ≥ ¾, all 8 are kept; after 2,
    # 6 of 8 = ¾: kept; after 3, 5 of 8 < ¾: 5 rows; 4 of 5 ≥ ¾: 5; 3 of 5 < ¾: 3; 2 of 3 < ¾: 2; 1 of 2: 1.
    assert batch_sizes == [(2, 3), (8, 1), (8, 1), (5, 1), (5, 1), (3, 1), (2, 1), (1, 1)]
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8]  # nothing is asked about a row that has ended


def test_rows_in_several_batches_are_the_same_rows(model):
    prompts = random_prompts(5, (12, 3, 20, 7, 7, 15, 1))
    whole = decode(model, prompts, lambda row, token: [], pad_id=PAD, temperature=0, max_sampled=6)
    parts = decode(model, prompts, lambda row, token: [], pad_id=PAD, temperature=0, max_sampled=6, max_rows=2)
    assert [s.ids for s in whole] == [s.ids for s in parts]


# ---- conversations -----------------------------------------------------------------------------------------------


def conversation(seed: int, lengths: Callable[[int, int], int], ends: Callable[[int, int], bool]) -> Any:
    """A `react` that forces lengths(row, turn) random tokens after each sampled one."""
    generator = torch.Generator().manual_seed(seed)
    turns: dict[int, int] = {}

    def react(row: int, token: int) -> list[int] | None:
        turn = turns[row] = turns.get(row, -1) + 1
        if ends(row, turn):
            return None
        return torch.randint(1, 440, (lengths(row, turn),), generator=generator).tolist()

    return react


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "lengths",
    [
        lambda row, turn: 2,  # nothing is padded after the prompts
        lambda row, turn: (5 * row + 3 * turn) % 7,  # 0 to 6 forced tokens, different in every row
        lambda row, turn: 45 if turn == row else 1,  # more than the cache's spare room at once
    ],
    ids=["even", "mixed", "long"],
)
@pytest.mark.parametrize("prompt_lengths", [(9, 9, 9), (3, 9, 21, 30)], ids=["equal", "different"])
def test_continuing_in_the_cache_equals_encoding_the_whole_sequence(monkeypatch, attention, lengths, prompt_lengths):
    model = lively_model(attention)
    prompts = sorted(random_prompts(1, prompt_lengths), key=lambda p: (len(p), p))  # slot i of the batch is row i
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        generation, "sample", lambda logits, *rest: (seen.append(logits.clone()), sample(logits, *rest))[1]
    )
    monkeypatch.setattr(generation, "_SHRINK", 0)  # a row keeps its slot
    talk, chose = conversation(2, lengths, lambda row, turn: False), [[] for _ in prompts]

    def react(row: int, token: int) -> list[int] | None:
        chose[row].append(seen[-1][row])  # a row that waits for others is not asked
        return talk(row, token)

    streams = decode(model, prompts, react, pad_id=PAD, rng=np.random.default_rng(3), max_sampled=12)

    for row, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
        whole = plain_logits(model, prompt + stream.ids)
        places = [
            len(prompt) + t - 1 for t, chosen in enumerate(stream.sampled) if chosen
        ]  # what predicted each choice
        assert len(places) == 12
        torch.testing.assert_close(torch.stack(chose[row]), whole[places], rtol=0, atol=1e-4)
    # Else the comparison would say little: another prefix changes these logits by far more than 1e-4.
    assert (plain_logits(model, prompts[0])[-1] - plain_logits(model, prompts[0][1:])[-1]).abs().max() > 0.1


def test_pages_are_read_together_and_what_is_sampled_stays_the_same(model, batch_sizes):
    """Rows write actions of 1, 2, 3 and 4 tokens, and each is answered by a page of 40 tokens."""
    prompts = random_prompts(8, (5, 5, 5, 5))

    def page(row: int, turn: int) -> list[int]:
        return [1 + (7 * row + 11 * turn + n) % 400 for n in range(40)]

    def play(max_rows: int) -> list[Stream]:
        turns = [0] * len(prompts)

        def react(row: int, token: int) -> list[int] | None:
            turns[row] += 1
            return [] if turns[row] % (row + 1) else page(row, turns[row])

        return decode(model, prompts, react, pad_id=PAD, rng=np.random.default_rng(3), max_sampled=9, max_rows=max_rows)

    together = play(4)
    # The prompts, three tokens while the quicker rows wait, one pass for all pages; and again.
    assert batch_sizes[:9] == [(4, 5), (4, 1), (4, 1), (4, 1), (4, 41), (4, 1), (4, 1), (4, 1), (4, 41)]
    alone = play(1)
    assert [s.ids for s in together] == [s.ids for s in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-4)
    assert [sum(s.sampled) for s in together] == [9] * 4


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
@pytest.mark.parametrize("allowed", [None, [3, 50, 51, 200, 439]])
def test_recorded_log_probs_equal_recomputed_ones(model, temperature, allowed, batch_sizes):
    prompts = random_prompts(4, (6, 25, 13, 1))
    prompts = [p for p in prompts for _ in range(4)]  # groups that share a prompt, as in a rollout
    react = conversation(5, lambda row, turn: (row + turn) % 4, lambda row, turn: turn >= row % 9)
    limits = None if allowed is None else torch.tensor(allowed)
    streams = decode(
        model, prompts, react, pad_id=PAD, allowed=limits, temperature=temperature,
        rng=np.random.default_rng(6), max_sampled=8,
    )  # fmt: skip

    assert batch_sizes[0][0] == 4  # one prefill for each different prompt …
    assert batch_sizes[1][0] > batch_sizes[-1][0]  # … and finished rows were dropped
    for prompt, stream in zip(prompts, streams, strict=True):
        logits = plain_logits(model, prompt + stream.ids) / temperature
        for t, (token, chosen, logp) in enumerate(zip(stream.ids, stream.sampled, stream.logp, strict=True)):
            if not chosen:
                assert logp == 0.0
                continue
            row = logits[len(prompt) + t - 1]
            if allowed is not None:
                keep = torch.full_like(row, -torch.inf)
                keep[allowed] = 0.0
                row = row + keep
            assert logp == pytest.approx(row.log_softmax(0)[token].item(), abs=1e-4)


def test_a_row_that_ends_forces_nothing_and_a_row_at_its_limit_stops(model):
    answers = iter([[11, 12], None])
    (ended,) = decode(model, [[5, 6]], lambda row, token: next(answers), pad_id=PAD, temperature=0, max_sampled=9)
    assert ended.sampled == [True, False, False, True]
    assert ended.ids[1:3] == [11, 12]
    (limited,) = decode(model, [[5, 6]], lambda row, token: [], pad_id=PAD, temperature=0, max_sampled=3)
    assert limited.sampled == [True] * 3
    assert decode(model, [], lambda row, token: [], pad_id=PAD, temperature=0) == []


# ---- sampling ----------------------------------------------------------------------------------------------------


def draw(model: Any, n: int, temperature: float, allowed: list[int], seed: int = 0) -> list[Stream]:
    return decode(
        model, [[17, 4, 99, 23]] * n, lambda row, token: None, pad_id=PAD, allowed=torch.tensor(allowed),
        temperature=temperature, rng=np.random.default_rng(seed), max_sampled=1,
    )  # fmt: skip


def chi_square(counts: torch.Tensor, p: torch.Tensor) -> float:
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_samples_follow_the_softmax_at_their_temperature(model):
    logits = plain_logits(model, [17, 4, 99, 23])[-1]
    # Eight tokens, each about a quarter below the one before: at τ = ½ the rarest has e^−3.5 of the most frequent.
    middle = [int((logits - (1 - k / 4)).abs().argmin()) for k in range(8)]
    assert len(set(middle)) == 8
    n = 4096
    streams = draw(model, n, 0.5, middle)
    counts = torch.tensor([sum(s.ids == [token] for s in streams) for token in middle], dtype=torch.float64)
    assert counts.sum() == n  # never another token
    p = torch.softmax(logits[middle].double() / 0.5, 0)
    assert (p * n).min() > 20
    # 8 cells: 7 degrees of freedom, whose 99.9 % quantile is 24.32.
    assert chi_square(counts, p) < 24.32
    # The test has power: a temperature a fifth off would not pass.
    assert chi_square(counts, torch.softmax(logits[middle].double() / 0.6, 0)) > 50
    assert chi_square(counts, torch.softmax(logits[middle].double() / 0.4, 0)) > 50


def test_only_allowed_tokens_are_sampled_however_hot(model):
    allowed = [2, 71, 300]
    unlikely = plain_logits(model, [17, 4, 99, 23])[-1].argmax().item()
    assert unlikely not in allowed  # without the constraint the model would say something else
    streams = decode(
        model, random_prompts(8, (4, 9, 30)) * 40, lambda row, token: [5], pad_id=PAD, allowed=torch.tensor(allowed),
        temperature=50.0, rng=np.random.default_rng(0), max_sampled=5,
    )  # fmt: skip
    chosen = [token for s in streams for token, mine in zip(s.ids, s.sampled, strict=True) if mine]
    assert len(chosen) == 3 * 40 * 5
    assert set(chosen) == set(allowed)


def test_sample_by_hand():
    # logits 0, ln 3, ln 4 of tokens 0, 1, 2; allowed 1 and 0: probabilities ¾ and ¼ whatever token 2 has
    logits = torch.log(torch.tensor([[1.0, 3.0, 4.0]]))
    token, logp = sample(logits, torch.tensor([1, 0]), 0.0, None)
    assert token.tolist() == [1]
    assert logp.exp().item() == pytest.approx(0.75)
    token, logp = sample(logits, None, 0.0, None)
    assert token.tolist() == [2]
    assert logp.exp().item() == pytest.approx(0.5)  # 4 / (1 + 3 + 4)
    # τ = ½ squares the odds, 1 : 9, so the first nine tenths of the unit interval are token 1
    uniform = torch.tensor([0.0, 0.5, 0.89, 0.91, 0.999999], dtype=torch.float64)
    tokens, logp = sample(logits.repeat(5, 1), torch.tensor([1, 0]), 0.5, uniform)
    assert tokens.tolist() == [1, 1, 1, 0, 0]
    assert logp.exp().tolist() == pytest.approx([0.9, 0.9, 0.9, 0.1, 0.1])
    # A token of probability zero is never where the number falls, at neither end.
    never = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert sample(never.repeat(2, 1), None, 1.0, torch.tensor([0.0, 1 - 1e-15], dtype=torch.float64))[0].tolist() == [
        1,
        1,
    ]


def test_same_generator_same_samples(model):
    def once(seed: int) -> list[list[int]]:
        streams = decode(
            model, random_prompts(9, (5, 12)) * 4, lambda row, token: [], pad_id=PAD,
            rng=np.random.default_rng(seed), max_sampled=6,
        )  # fmt: skip
        return [s.ids for s in streams]

    assert once(1) == once(1)
    assert once(1) != once(2)


@pytest.mark.parametrize(("max_rows", "workers"), [(4, 1), (4, 3), (1, 2)])
def test_samples_depend_neither_on_the_batches_nor_on_the_workers(model, max_rows, workers):
    def once(**how: int) -> list[tuple[list[int], list[bool]]]:
        streams = decode(
            model, random_prompts(9, (5, 12, 7)) * 4, lambda row, token: [3] if token % 5 else None, pad_id=PAD,
            rng=np.random.default_rng(2), max_sampled=6, **how,
        )  # fmt: skip
        return [(s.ids, s.sampled) for s in streams]

    assert once(max_rows=max_rows, workers=workers) == once(max_rows=12, workers=1)


def test_sampling_without_a_generator_is_refused(model):
    with pytest.raises(ValueError, match="rng"):
        decode(model, [[5, 6]], lambda row, token: None, pad_id=PAD)
