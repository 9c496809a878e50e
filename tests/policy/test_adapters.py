"""Adapters that somebody else made with peft: the same function, or a refusal before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from zoo import error_line

from himac_lite import cli
from himac_lite.errors import ModelError
from himac_lite.policy.loading import load_policy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.make(tmp_path_factory.mktemp("base") / "llama", "Llama")


def foreign(base: Path, out: Path, **settings: Any) -> Any:
    """The model with an adapter made by plain peft and saved in `out`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    model = get_peft_model(plain, LoraConfig(**settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn_like(p)
    model.save_pretrained(out)
    return model.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1},
        {"target_modules": ["up_proj"], "layers_to_transform": [1]},
    ],
    ids=["all_linear", "two_modules", "one_layer"],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_plain_lora_gives_the_logits_of_peft(base: Path, tmp_path: Path, settings: dict[str, Any]):
    model = foreign(base, tmp_path / "a", **settings)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        wanted = model(ids).logits
        for where in ("adapter", "start"):
            policy = load_policy(str(base), four_bit=False, device="cpu", **{where: tmp_path / "a"})
            torch.testing.assert_close(policy.computing()(ids).logits, wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(policy.computing(reference=True)(ids).logits, wanted, rtol=0, atol=1e-4)
        fresh = load_policy(str(base), four_bit=False, device="cpu")
        assert (fresh.computing()(ids).logits - wanted).abs().max() > 0.01


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}, {"alpha_pattern": {"q_proj": 32}},
        {"rank_pattern": {"q_proj": 8}}, {"bias": "all"}, {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]}, {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1, 2]}, {"layer_replication": [[0, 2], [0, 2]]},
    ],
    ids=str,
)  # fmt: skip
def test_other_adapters_are_refused(
    base: Path, tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    foreign(base, tmp_path / "a", **settings)
    capsys.readouterr()
    with pytest.raises(ModelError, match=r"only plain LoRA|only linear layers"):
        load_policy(str(base), start=tmp_path / "a", device="cpu")
    if "target_modules" not in settings:  # nothing is loaded before
        assert cli.main(["memory", "--model", str(base), "--adapter", str(tmp_path / "a")]) == 2
        assert "only plain LoRA" in error_line(capsys)


def test_a_setting_of_a_later_peft_is_refused_unless_it_is_off(base: Path, tmp_path: Path):
    foreign(base, tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"use_newlora": False}))
    load_policy(str(base), start=tmp_path / "a", device="cpu")
    file.write_text(json.dumps(kept | {"use_newlora": True}))
    with pytest.raises(ModelError, match="use_newlora=True"):
        load_policy(str(base), start=tmp_path / "a", device="cpu")


def test_half_of_a_pair_is_refused(base: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    foreign(base, tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    kept = load_file(file)
    kept.pop(next(name for name in kept if "lora_A" in name))
    save_file(kept, file)
    with pytest.raises(ModelError, match="half of the pair"):
        load_policy(str(base), start=tmp_path / "a", device="cpu")
