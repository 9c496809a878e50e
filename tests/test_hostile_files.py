"""Files that a stranger made: level files, run folders, settings and checkpoints of any shape end in a `HimacError`."""

from __future__ import annotations

import ast
import gzip
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_training
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from himac_lite import cli, storage
from himac_lite.config import Train, as_dict, from_dict
from himac_lite.errors import ConfigError, HimacError, LevelError, RunError
from himac_lite.runs import records
from himac_lite.runs.folder import Run, create_run, load_run
from himac_lite.tasks.sokoban.levels import iter_levels, load_levels
from himac_lite.types import Level

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
import fuzz

ROOT = Path(__file__).parents[1]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12)
JSON = st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3))


@st.composite
def mutated(draw: Any, whole: Any) -> Any:
    """A JSON value with some of its parts replaced, removed or added."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        place, value = value, value
        while isinstance(place, dict | list) and place and draw(st.booleans()):
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(place[key], dict | list) or draw(st.integers(0, 2)) == 0:
                if draw(st.integers(0, 3)) == 0:
                    del place[key]
                else:
                    place[key] = draw(JSON)
                break
            place = place[key]
        else:
            if isinstance(place, dict):
                place[draw(st.text(max_size=6))] = draw(JSON)
    return value


def quietly(action: Any) -> Any:
    """What it returns, or the error of one line; any other exception fails the test."""
    try:
        return action()
    except HimacError as error:
        found = error
    assert "\n" not in str(found)
    return found


# ---- settings and run folders


@given(mutated(as_dict(Train())))
@QUICK
def test_any_settings_are_settings_or_an_error(data):
    found = quietly(lambda: from_dict(data))
    assert isinstance(found, Train | ConfigError)
    if isinstance(found, Train):
        for name, value in as_dict(found).items():
            assert type(value) is type(as_dict(Train())[name]) or value is None or as_dict(Train())[name] is None


@given(JSON)
@QUICK
def test_any_json_is_settings_or_an_error(data):
    assert isinstance(quietly(lambda: from_dict(data)), Train | ConfigError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint, metrics and rollouts."""
    run = create_run(tmp_path_factory.mktemp("hostile") / "run", Train(), {})
    run.append_metrics({"iteration": 1, "macro/return": 0.5})
    run.record(1, [RECORD])
    state = {"env_steps": 1, "tokens": 2, "seconds": 0.5, "validation": 0.1}
    run.save_checkpoint(1, state, lambda f: (f / "weights").write_text("w"), 2)
    run.write_results({"trained": {"success": 0.5}})
    return run.folder


MEMBER = {
    "return": 1.0, "success": True, "steps": 1, "moves": "R", "advantage": 0.0, "tokens": ["a"], "sampled": [1],
    "logp": [-0.1], "segments": [{"end": "success", "steps": 1, "subgoal": "s"}], "sequences": [], "blueprint": "b",
    "invalid": None,
}  # fmt: skip
RECORD = {"level": "#####\n#@$.#\n#####", "title": "t", "optimal_moves": 1,
          "macro": {"best": 0, "members": [MEMBER]}, "micro": {"blueprint": "b", "members": [MEMBER]}}  # fmt: skip


def look_at(run: Run) -> None:
    """All that is read of a run folder."""
    quietly(lambda: load_run(run.folder))
    for action in (
        lambda: run.manifest, lambda: run.config, lambda: run.results, run.metrics, lambda: run.rollouts(1),
        run.recorded_iterations, run.latest_checkpoint, run.best_checkpoint, lambda: run.rewind(0),
    ):  # fmt: skip
        quietly(action)


@pytest.mark.parametrize("name", ["manifest.json", "metrics.jsonl", "rollouts/000001.jsonl", "results.json",
                                  "checkpoints/000001/state.json"])  # fmt: skip
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_of_any_shape_in_a_run_folder_is_an_error_of_one_line(folder, tmp_path, name, data):
    place = tmp_path / "run"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    whole = json.loads((place / name).read_text())
    text = data.draw(mutated(whole).map(json.dumps) | st.text(max_size=40) | st.binary(max_size=40), label=name)
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    look_at(Run(place))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000, b'{"a":' * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"\x00" * 100, b"null",
        b'{"format": 1e999}', b'{"format": NaN}', b"{}" * 2, "\ufeff{}".encode(), b'{"\\ud800": 1}',
    ],
    ids=lambda data: repr(data[:12]),
)  # fmt: skip
def test_json_that_is_made_to_hurt(folder, tmp_path, data):
    shutil.copytree(folder, tmp_path / "run")
    for name in ("manifest.json", "metrics.jsonl", "rollouts/000001.jsonl", "checkpoints/000001/state.json"):
        (tmp_path / "run" / name).write_bytes(data)
    look_at(Run(tmp_path / "run"))


def test_a_file_without_end_is_not_read_whole(folder, tmp_path):
    """Sparse files of 100 GB: they take no room, and would take all memory."""
    shutil.copytree(folder, tmp_path / "run")
    for name in ("manifest.json", "metrics.jsonl"):
        with (tmp_path / "run" / name).open("wb") as file:
            file.truncate(100 * 10**9)
    with pytest.raises(RunError, match="larger than 64 MB"):
        load_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"line 1"):
        Run(tmp_path / "run").metrics()


@given(mutated(RECORD))
@QUICK
@example(RECORD)
def test_a_record_is_shown_or_refused_and_never_a_traceback(record):
    from himac_lite.widgets.player import level_playback

    if isinstance(record, dict) and {"macro", "micro"} <= record.keys():
        found = quietly(lambda: records.check(record))
        if found is None and record.get("level") == RECORD["level"]:
            quietly(lambda: level_playback(record, "micro", None, None))


def test_folders_and_rollouts_with_odd_names_are_passed_over(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    for name in ("1x.jsonl", "²³.jsonl", "00000000000000000000001.jsonl", "٣.jsonl"):
        (run.folder / "rollouts" / name).write_text("{}")
    for name in ("1x", "²", "0" * 30):
        (run.folder / "checkpoints" / name).mkdir()
    assert run.recorded_iterations() == [1]
    assert run.latest_checkpoint().iteration == 1


# ---- level files


@given(st.binary(max_size=300) | st.text("#@$.*+ -_pPbB0123456789|()\n;:Title", max_size=300).map(str.encode))
@QUICK
def test_any_bytes_are_levels_or_say_why_not(data):
    fuzz.levels(data)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_what_fuzzing_found_worth_keeping(target):
    corpus = sorted((fuzz.CORPUS / target).iterdir())
    assert corpus
    for file in corpus:
        fuzz.TARGETS[target](file.read_bytes())


def test_archives_are_not_opened(tmp_path):
    """A zip or gzip bomb is a file of a few bytes: nothing here decompresses."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("levels.xsb", "#" * 10_000_000)
    for name, data in (("a.xsb", packed.getvalue()), ("b.xsb", gzip.compress(b"#" * 10_000_000))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LevelError, match="not a text file"):
            load_levels(tmp_path / name)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_bytes(packed.getvalue())
    with pytest.raises(RunError, match="cannot read"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    "text",
    ["9999999(9999999#)", "1000000#|" * 1000, "(" * 50_000 + "#" + ")" * 50_000, "9(9(9(9(9(9(9(#@$.)))))))",
     "#" * 2_000_000, "#@$.#\n" * 200_000, "0#1#2#" * 10_000, "9" * 100_000 + "#"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_run_lengths_do_not_blow_up(text, tmp_path):
    """Levels of at most 1,000 rows and columns come of it, whatever the numbers say."""
    file = tmp_path / "bomb.xsb"
    file.write_text(text)
    for one in iter_levels(file):
        assert isinstance(one, Level | LevelError)
        if isinstance(one, Level):
            assert max(len(one.rows), *map(len, one.rows)) <= 1000


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "a\0b", "x" * 5000, "core/../../secret", "core/", "/"])
def test_paths_that_are_no_level_file(path):
    with pytest.raises(LevelError) as error:
        load_levels(path)
    assert "\n" not in str(error.value)


# ---- safetensors only, no foreign code

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def offences(source: str) -> list[str]:
    """What in a source file could run what a stranger's file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {n}" for n in names if n.partition(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(node.func.id)
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if isinstance(owner, ast.Name) and f"{owner.id}.{node.func.attr}" == "torch.load":  # type: ignore[attr-defined]
                only = [k for k in node.keywords if k.arg == "weights_only"]
                found += [] if only and getattr(only[0].value, "value", None) is True else ["torch.load"]
            for k in node.keywords:
                allowed = {"trust_remote_code": False, "allow_pickle": False, "use_safetensors": True}
                if k.arg in allowed and getattr(k.value, "value", None) is not allowed[k.arg]:
                    found.append(f"{k.arg}={ast.unparse(k.value)}")
            name = ast.unparse(node.func)
            given = {k.arg for k in node.keywords}
            if name.startswith("Auto") and name.endswith(".from_pretrained") and "trust_remote_code" not in given:
                found.append(f"{name} without trust_remote_code=False")  # the default asks on the terminal
            if name == "AutoModelForCausalLM.from_pretrained" and "use_safetensors" not in given:
                found.append(
                    f"{name} without use_safetensors=True"
                )  # the default unpickles where there is nothing else
    return found


def test_no_source_file_can_run_what_a_file_says():
    files = sorted((ROOT / "himac_lite").rglob("*.py"))
    assert len(files) > 50
    found = {f.relative_to(ROOT).as_posix(): offences(f.read_text("utf-8")) for f in files}
    # The one exception imports a file that the user names; tests/test_from_file.py holds it to that.
    assert {name: what for name, what in found.items() if what} == {"himac_lite/from_file.py": ["exec", "compile"]}


@pytest.mark.parametrize("source", [
    "import pickle", "from joblib import load", "eval(x)", "torch.load(f)", "torch.load(f, weights_only=False)",
    "f(trust_remote_code=True)", "f(trust_remote_code=x)", "np.load(f, allow_pickle=True)",
    "AutoTokenizer.from_pretrained(p)", "AutoModelForCausalLM.from_pretrained(p, trust_remote_code=False)",
])  # fmt: skip
def test_the_check_sees_it(source):
    assert offences(source)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.file),))


def test_a_model_or_adapter_of_pickles_is_refused_unread(tiny_model, policy, tmp_path):
    from himac_lite.errors import ModelError
    from himac_lite.policy.loading import load_policy

    burst, bomb = tmp_path / "burst", pickle.dumps(Bomb(tmp_path / "burst"))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(bomb)
    adapter = tmp_path / "adapter"
    policy.peft_model.save_pretrained(str(adapter), save_embedding_layers=False)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(bomb)
    for action in (lambda: load_policy(str(model)), lambda: load_policy(str(tiny_model), adapter=adapter)):
        with pytest.raises(ModelError) as error:
            action()
        assert "safetensors" in str(error.value)
        assert "\n" not in str(error.value)
    assert not burst.exists()


def test_a_model_with_code_of_its_own_is_refused_without_a_question(tiny_model, tmp_path, monkeypatch):
    from himac_lite.errors import ModelError
    from himac_lite.policy.loading import load_policy

    model, burst = tmp_path / "model", tmp_path / "burst"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text(f"import os; os.mkdir({str(burst)!r})")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(ModelError) as error:
        load_policy(str(model))
    assert "\n" not in str(error.value)
    assert not burst.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "XLORA"}, "no LoRA adapter"), ({"r": 0}, "whole numbers"), ({"r": "4"}, "whole numbers"),
        ({"lora_alpha": None}, "whole numbers"), ({"r": 10**9}, "whole numbers"), ({"r": 3}, "adapter"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_kind_or_shape(policy, tiny_model, tmp_path, change, said):
    from himac_lite.errors import ModelError
    from himac_lite.policy.loading import load_policy

    policy.peft_model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=said) as error:
        load_policy(str(tiny_model), adapter=tmp_path)
    assert "\n" not in str(error.value)


def test_what_an_adapter_says_of_itself_imports_nothing(policy, new_policy, tmp_path):
    """peft imports the module that `megatron_core` names."""
    policy.peft_model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    file = tmp_path / "adapter_config.json"
    change = {"megatron_config": {"a": 1}, "megatron_core": "evil_module", "auto_mapping": {"base_model_class": "x"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert new_policy(adapter=tmp_path).trainable()


@pytest.mark.parametrize("name", ["exp_avg", "step", "7777777777777.exp_avg", "0.", "empty.x", "0.exp_avg"])
def test_an_optimizer_of_another_model(tmp_path, name):
    import torch
    from safetensors.torch import save_file

    from himac_lite.policy import adapter as saving

    save_file({name: torch.zeros(3, 5)}, str(tmp_path / "optimizer.safetensors"))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2, 2))])
    with pytest.raises(RunError, match="is not the state of this model"):
        saving.read_state(tmp_path / "optimizer.safetensors", [optimizer])
    (tmp_path / "optimizer.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(RunError, match="cannot read"):
        saving.read_state(tmp_path / "optimizer.safetensors", [optimizer])


@pytest.mark.parametrize("change", [
    {"env_steps": None}, {"tokens": "5"}, {"seconds": float("nan")}, {"iteration": -1}, {"iteration": True},
    {"iteration": 1.5}, {"seconds": float("inf")},
])  # fmt: skip
def test_counters_of_another_shape(change, tmp_path):
    from himac_lite.policy import adapter as saving

    state = {"iteration": 1, "env_steps": 2, "tokens": 3, "seconds": 4.5}
    assert saving.counters(state, tmp_path) == state
    with pytest.raises(RunError, match=next(iter(change))):
        saving.counters(state | change, tmp_path)


def test_a_path_lies_inside_on_every_system():
    assert all(map(storage.lies_inside, ["adapter_model.safetensors", "executor/adapter_model.safetensors"]))
    outside = [
        "",
        ".",
        "..",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        "../a",
        "a\\b",
        "c:a",
        "a\0",
        5,
        None,
        "x" * 256,
        "a/" * 999,
    ]
    assert not any(map(storage.lies_inside, outside))


@needs_training
@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "dtype", 10**30), ("config.json", "num_hidden_layers", -1),
        ("tokenizer_config.json", "model_max_length", {}), ("tokenizer_config.json", "eos_token", 5),
    ],
)  # fmt: skip
def test_a_model_whose_settings_are_of_other_types_is_one_line(
    tiny_model, toy_file, tmp_path, capsys, file, key, value
):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | {key: value}))
    out = tmp_path / "run"
    for command in (["memory"], ["train", "--iterations", "1", "--out", str(out)]):
        assert cli.main([*command, "--model", str(model), "--levels", toy_file]) == 2
    assert str(model) in capsys.readouterr().err
    assert not out.exists()
