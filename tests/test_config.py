"""Settings: what is set from text, and that every mistake is answered with the name of its field."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from himac_lite.config import (
    TRAIN_PRESETS,
    Model,
    Pretrain,
    Rollout,
    Train,
    Update,
    as_dict,
    from_dict,
    override,
    validate,
)
from himac_lite.errors import ConfigError, HimacError


def said(error: pytest.ExceptionInfo[Any]) -> str:
    message = str(error.value)
    assert isinstance(error.value, HimacError)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("path", "text", "wanted"),
    [
        ("iterations", "7", Train(iterations=7)),
        ("update.lr", "5e-4", Train(update=Update(lr=5e-4))),
        ("update.lr", "1", Train(update=Update(lr=1.0))),
        ("model.four_bit", "false", Train(model=Model(four_bit=False))),
        ("model.path", "some/model", Train(model=Model(path="some/model"))),
        ("model.path", "123", Train(model=Model(path="123"))),
        ("variant", "flat_grpo", Train(variant="flat_grpo")),
        ("minutes", "2", Train(minutes=2.0)),
        ("minutes", "null", Train()),
        ("env_steps", "500", Train(env_steps=500)),
        ("rollout.progress_share", "0.1", Train(rollout=Rollout(progress_share=0.1))),
    ],
)
def test_a_setting_from_text(path, text, wanted):
    config = override(Train(), path, text)
    assert config == wanted
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    old: Any = wanted
    for part in path.split("."):
        old = getattr(old, part)
    assert type(value) is type(old)


def test_settings_add_up_and_the_default_is_untouched():
    config = override(override(Train(), "update.lr", "0.5"), "update.epochs", "3")
    assert config == Train(update=Update(lr=0.5, epochs=3))
    assert Train().update.lr != 0.5
    assert override(Pretrain(), "width", "64").width == 64


@pytest.mark.parametrize(
    ("path", "text", "parts"),
    [
        ("speed", "1", ["'speed'", "iterations", "rollout"]),
        ("update.speed", "1", ["'speed'", "lr", "beta"]),
        ("update", "1", ["'update'", "update.lr"]),
        ("iterations.many", "1", ["'iterations'", "no parts"]),
        ("iterations", "many", ["iterations", "int", "'many'"]),
        ("iterations", "2.5", ["iterations", "int", "2.5"]),
        ("iterations", "true", ["iterations", "int", "True"]),
        ("iterations", "null", ["iterations", "int", "None"]),
        ("iterations", "[1]", ["iterations", "int"]),
        ("update.lr", "fast", ["lr", "float", "'fast'"]),
        ("update.lr", "true", ["lr", "float", "True"]),
        ("update.lr", "", ["lr", "float"]),
        ("model.four_bit", "1", ["four_bit", "bool", "1"]),
        ("minutes", "soon", ["minutes", "float", "'soon'"]),
        ("env_steps", "1.5", ["env_steps", "int", "1.5"]),
        ("", "1", ["unknown setting", "iterations"]),
    ],
)
def test_a_bad_setting_names_the_field_and_what_is_allowed(path, text, parts):
    with pytest.raises(ConfigError) as error:
        override(Train(), path, text)
    message = said(error)
    assert all(part in message for part in parts), message


OUT_OF_RANGE = [
    ("iterations", -1), ("minutes", -1.0), ("minutes", float("nan")), ("env_steps", -1), ("seed", -1), ("seed", 2**32),
    ("validate_every", -1), ("validate_on", 0), ("checkpoint_every", 0), ("keep_checkpoints", 0), ("record_levels", -1),
    ("probe_levels", -1), ("probe_every", 0), ("keep_rollouts", 0), ("warn_after", 0),
    ("test_limit", 0), ("model.rank", 0), ("model.alpha", 0), ("rollout.levels", 0), ("rollout.group", 1),
    ("rollout.temperature", 0.0), ("rollout.temperature", float("inf")), ("rollout.max_steps", 0),
    ("rollout.subgoal_budget", 0), ("rollout.progress_share", 1.5), ("rollout.progress_share", -0.1),
    ("update.lr", float("nan")), ("update.lr", -1e-3), ("update.minibatches", 0), ("update.epochs", 0),
    ("update.clip_low", 1.1), ("update.clip_low", -0.1), ("update.clip_high", -0.1), ("update.beta", -0.01),
    ("update.grad_clip", 0.0), ("update.micro_tokens", -1), ("update.groups_per_step", 0),
    ("update.lr_floor", 1.1), ("rollout.curriculum", 1.1),
    ("rollout.min_length", -1),
]  # fmt: skip


def changed(path: str, value: Any) -> Train:
    name, _, rest = path.partition(".")
    if rest:
        return replace(Train(), **{name: replace(getattr(Train(), name), **{rest: value})})
    return replace(Train(), **{name: value})


@pytest.mark.parametrize(("path", "value"), OUT_OF_RANGE)
def test_a_number_out_of_range_names_the_field_and_the_range(path, value):
    with pytest.raises(ConfigError) as error:
        validate(changed(path, value))
    assert said(error).startswith(f"{path} must lie between")
    assert str(value) in said(error)


def test_every_number_has_a_range():
    """A new field that is a number must be given bounds, or a typing error of a user ends in a traceback."""
    numbers = set()
    for f in fields(Train):
        part = getattr(Train(), f.name)
        inner = [(f"{f.name}.{g.name}", g.type) for g in fields(part)] if is_dataclass(part) else [(f.name, f.type)]
        numbers |= {name for name, kind in inner if str(kind).startswith(("int", "float"))}
    assert numbers == {path for path, _ in OUT_OF_RANGE}


@pytest.mark.parametrize("name", TRAIN_PRESETS)
def test_presets_are_in_range_and_survive_json(name):
    config = validate(TRAIN_PRESETS[name])
    assert config == TRAIN_PRESETS[name]
    assert from_dict(json.loads(json.dumps(as_dict(config)))) == config


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("update"),
        lambda d: d.update(speed=1),
        lambda d: d["update"].update(speed=1),
        lambda d: d.update(model=None),
        lambda d: d.update(model="sokoban-base"),
        lambda d: d.update(seed="zero"),
        lambda d: d["rollout"].update(group=0),
        lambda d: d["rollout"].update(group=8.0),
        lambda d: d["rollout"].update(temperature=10**400),
        lambda d: d["model"].update(four_bit="yes"),
        lambda d: d["model"].update(path="model\0"),
        lambda d: d["model"].update(path="m" * 5000),
        lambda d: d.update(train_levels=["core"]),
        lambda d: d.update(iterations=True),
    ],
)
def test_a_configuration_that_cannot_be_read(change):
    data = as_dict(Train())
    change(data)
    with pytest.raises(ConfigError) as error:
        from_dict(data)
    assert said(error)
