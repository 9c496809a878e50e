"""One stage of pretraining: NF4, the loss, and that neither cores nor micro-batches nor interruptions matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from himac_lite.config import Pretrain
from himac_lite.errors import RunError
from himac_lite.policy.parallel import summed_gradients
from himac_lite.pretraining.pretrain import make_model
from himac_lite.pretraining.sokoban import EXPERT
from himac_lite.pretraining.stages import Stage, batches, demonstration_loss, through_nf4

TINY = Pretrain(width=64, layers=1, heads=2, batch_tokens=1024, micro_tokens=512)


def test_nf4_round_trip_is_that_of_bitsandbytes():
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", quant_storage=torch.uint8)
    torch.testing.assert_close(through_nf4(weight), dequantize_4bit(packed, state), atol=1e-6, rtol=0)


def test_loss_counts_the_marked_tokens_and_no_other():
    model = make_model(TINY)
    ids, learn = next(batches(TINY, EXPERT, 0, set()))
    ids, learn = torch.from_numpy(ids), torch.from_numpy(learn)
    labels = torch.where(learn, ids, -100)  # transformers' own loss ignores -100 and takes the mean
    expected = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(demonstration_loss(model, ids, learn) / learn.sum(), expected)


def test_gradient_does_not_depend_on_the_micro_batches():
    model = make_model(TINY)
    ids, learn = next(batches(TINY, EXPERT, 0, set()))

    def gradients(rows: int) -> list[torch.Tensor]:
        parts = [
            (torch.from_numpy(ids[i : i + rows]), torch.from_numpy(learn[i : i + rows]))
            for i in range(0, len(ids), rows)
        ]
        return summed_gradients(lambda p: demonstration_loss(model, *p), parts, list(model.parameters()))[1]

    for whole, cut in zip(gradients(len(ids)), gradients(3), strict=True):
        torch.testing.assert_close(cut, whole, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("nf4", [False, True])
def test_an_interrupted_stage_ends_with_the_same_bits(tmp_path: Path, nf4: bool):
    def make() -> Stage:
        return Stage(make_model(TINY), TINY, EXPERT, 5, seed=0, nf4=nf4)

    whole = make()
    whole.run(lambda *_: None)

    class Killed(Exception):
        pass

    def kill(number: int, *_: float) -> None:
        if number == 4:
            raise Killed

    file = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        make().run(kill, file, every=2)
    again, seen = make(), []
    again.run(lambda number, *_: seen.append(number), file, every=2)
    assert seen == [3, 4, 5]  # from the state that step 2 left
    for name, p in whole.masters.items():
        assert torch.equal(p, again.masters[name]), name
    for (name, p), q in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q), name


DAMAGES = ["bytes", "another width", "another recipe", "fewer steps", "a name", "not a number"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_of_another_model_or_version_is_refused_in_one_line(tmp_path: Path, damage: str):
    """Nothing of it may end in a traceback, and the message says what to delete."""
    file = tmp_path / "state.safetensors"
    other = replace(TINY, width=128) if damage == "another width" else TINY
    stage = Stage(make_model(other), other, EXPERT, 5, seed=0, nf4=False)
    stage.step(*next(batches(other, EXPERT, 0, set())))
    kept = {name: value.contiguous() for name, value in stage._state().items()}
    if damage == "another recipe":
        kept = {name: value for name, value in kept.items() if not name.startswith("master.lm_head")}
        del kept[next(name for name in kept if name.startswith("master."))]
    elif damage == "fewer steps":
        kept["done"] = torch.tensor(7)
    elif damage == "a name":
        kept["optimizer.99.0.exp_avg"] = torch.zeros(1)
    elif damage == "not a number":
        kept["optimizer.x.0"] = torch.zeros(1)
    save_file(kept, str(file))
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:100])
    fresh = Stage(make_model(TINY), TINY, EXPERT, 5, seed=0, nf4=False)
    with pytest.raises(RunError) as error:
        fresh.run(lambda *_: None, file)
    assert str(file) in str(error.value)
    assert "delete it" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_while_a_state_is_kept_is_one_line(tmp_path: Path, file_limit):
    stage = Stage(make_model(TINY), TINY, EXPERT, 1, seed=0, nf4=False)
    file = tmp_path / "state.safetensors"
    with file_limit(10_000), pytest.raises(RunError, match="cannot write to"):
        stage.run(lambda *_: None, file, every=1)
    assert list(tmp_path.iterdir()) == []


def test_any_number_of_cores_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    from himac_lite.policy import parallel

    ids, learn = next(batches(TINY, EXPERT, 0, set()))
    ends = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(parallel, "cores", lambda cores=cores: cores)
        stage = Stage(make_model(TINY), replace(TINY, micro_tokens=256), EXPERT, 3, seed=0)
        stage.step(ids, learn)
        ends.append(np.concatenate([p.detach().numpy().ravel() for p in stage.model.parameters()]))
    assert all((end == ends[0]).all() for end in ends)
