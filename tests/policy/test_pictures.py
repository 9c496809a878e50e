"""Pictures in prompts, with a small vision-language model of random weights: the same path as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hub
import numpy as np
import pytest
import torch

from himac_lite import cli
from himac_lite.errors import ModelError
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.pictures import Shows
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.pixels import to_rgb
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Role, Sampling

TASK = SokobanTask(max_steps=3)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub.make_seeing(tmp_path_factory.mktemp("seeing") / "vl")


@pytest.fixture(scope="module")
def policy(seeing: Path) -> Any:
    return load_policy(str(seeing), LoraSettings(4, 8), observation="rgb", device="cpu")


def test_a_picture_takes_a_place_a_cell_in_the_users_turn(policy: Any, toy_levels: Any):
    episode = TASK.start(toy_levels[0])  # 3 rows, 5 columns: 28 pixels a cell, of which the tower makes one place
    ids = policy.prompt(episode, Role.FLAT)
    assert [i for i in ids if i < 0] == [min(ids)] * 15
    said = episode.show(Role.FLAT)[0]
    assert "#####" not in said.situation
    assert policy.text(ids) == (
        f"<|im_start|>system\n{said.rules}<|im_end|>\n<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * 15}"
        f"<|vision_end|>{said.situation}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert isinstance(episode, Shows)
    np.testing.assert_array_equal(episode.show(Role.FLAT)[1], to_rgb(episode.board, 28))


def test_prompts_are_equal_just_when_their_pictures_are(policy: Any, toy_levels: Any):
    one, other = (TASK.start(level) for level in toy_levels[1:3])
    assert policy.prompt(one, Role.FLAT) == policy.prompt(TASK.start(toy_levels[1]), Role.FLAT)
    one.act(0)  # a blocked move: the same board
    before = policy.prompt(one, Role.FLAT)
    one.act(1)  # the box is pushed
    assert policy.prompt(one, Role.FLAT) != before
    assert len(policy.prompt(one, Role.FLAT)) == len(before)
    assert policy.prompt(other, Role.FLAT) != before


def test_log_probs_are_those_of_the_library_without_a_cache(policy: Any, toy_levels: Any):
    """Rollout (shared prefill, cache, shifted positions) = update = one plain forward pass of the whole sequence."""
    played = Arena(policy, TASK).play_flat([*toy_levels, toy_levels[2]], Sampling(1.0, np.random.default_rng(0)))
    batch = [s for t in played for s in t.segments]
    scores = policy.log_probs(batch)
    assert (scores.logp - scores.behaviour)[scores.mask].abs().max() < 1e-4
    model = policy._computing(False)
    for row, s in enumerate(batch):
        ids = torch.tensor([s.ids])
        patches, grids = policy.pictures.of(ids)
        with torch.no_grad():
            model.model.rope_deltas = None
            logits = model(
                input_ids=torch.where(ids < 0, policy.pictures.token, ids), pixel_values=patches, image_grid_thw=grids,
                mm_token_type_ids=(ids < 0).int(), attention_mask=torch.ones_like(ids), use_cache=False,
            ).logits[0]  # fmt: skip
        logp = torch.log_softmax(logits[:, list(s.allowed)], -1)
        chosen = [t for t, own in enumerate(s.action_mask) if own]
        own = torch.stack([logp[t - 1, s.allowed.index(s.ids[t])] for t in chosen])
        torch.testing.assert_close(scores.logp[row][scores.mask[row]].detach(), own, rtol=0, atol=1e-4)


def test_what_is_seen_matters_and_the_eyes_are_not_trained(policy: Any, toy_levels: Any):
    assert not any("visual" in name for name, _ in policy.named_trainable())
    assert any("visual" in name for name, _ in policy.reference.named_parameters())
    one, two = (policy.prompt(TASK.start(level), Role.FLAT) for level in (toy_levels[1], toy_levels[1]))
    assert one == two
    episode = TASK.start(toy_levels[1])
    episode.act(1)
    other = policy.prompt(episode, Role.FLAT)
    mask = torch.ones((1, len(one)), dtype=torch.long)
    with torch.no_grad():
        first, second = (
            policy.computing()(torch.tensor([ids]), mask, mask.cumsum(1) - 1, None, logits_to_keep=1).logits
            for ids in (one, other)
        )
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_a_seeing_model_trains_by_the_same_command(
    seeing: Path, toy_file: str, tmp_path: Path, checkpointing: str, capsys: pytest.CaptureFixture[str]
):
    settings = [
        "model.observation=rgb", "rollout.levels=2", "rollout.group=4", "rollout.max_steps=2", "validate_every=0",
        f"test_levels={toy_file}", f"validation_levels={toy_file}", "probe_levels=0", "update.groups_per_step=1",
        "rollout.progress_share=0.5", f"model.checkpointing={checkpointing}",
    ]  # fmt: skip
    argv = ["train", "--model", str(seeing), "--variant", "flat_grpo", "--levels", toy_file, "--iterations", "1"]
    argv += ["--out", str(tmp_path / "run"), "--json", *(a for s in settings for a in ("--set", s))]
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["trained"]["n"] == 4
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["micro/grad_norm"] > 0


def test_a_blind_model_cannot_be_shown_pictures(tmp_path: Path):
    folder = hub.make_hub(tmp_path / "blind", "qwen2.5")
    with pytest.raises(ModelError, match="takes no pictures"):
        load_policy(str(folder), observation="rgb")
