"""Levels are refused before any work; solutions are searched only where they are needed, with progress."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import one_line

from himac_lite import cli, storage
from himac_lite.config import Train
from himac_lite.errors import ConfigError, HimacError, LevelError, RunError
from himac_lite.rollout.rules import ReturnRule
from himac_lite.runs.curriculum import curriculum
from himac_lite.tasks import registry
from himac_lite.tasks.registry import lengths, load_items
from himac_lite.tasks.sokoban import generator, solver, task
from himac_lite.tasks.sokoban.levels import load_levels, save_levels
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Level

ROOT = Path(__file__).parents[2]
SMALL = Level(("#####", "#@$.#", "#####"), "small")
WIDE = Level(("############", "#@$.       #", "############"), "wide")
UNSOLVABLE = Level(("#####", "#@ .#", "#$  #", "#####"), "no way")


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Level]:
    """The levels that the task has searched for a solution."""
    found: list[Level] = []

    def counted(level: Level, *args: Any, **kwargs: Any) -> Any:
        found.append(level)
        return solver.solve(level, *args, **kwargs)

    monkeypatch.setattr(task, "solve", counted)
    task._solution.cache_clear()
    return found


BAD = {
    "too large": (
        "\n".join(["", *SMALL.rows, "", "; wide", *WIDE.rows]),
        "level 2 (wide) has 3x12 cells; the limit is",
    ),
    "no player": ("#####\n# $.#\n#####\n", "level 1 (line 1): 0 players"),
    "unknown character": ("#####\n#@\t$.#\n#####\n", "line 2, column 3: TAB (U+0009)"),
    "no level": ("hello\n", "no level found"),
    "damaged XML": ("<SokobanLevels>", "damaged XML"),
}


@pytest.mark.parametrize("command", ["train --out {0}/run", "evaluate sokoban-base", "sft --out {0}/adapter"])
def test_a_bad_file_is_refused_before_torch_is_imported(command, tmp_path):
    """Each in one process, which has not imported torch at the end: its import alone takes seconds."""
    lines = ["import sys", "from himac_lite import cli"]
    for number, (text, _) in enumerate(BAD.values()):
        file = tmp_path / f"{number}.xsb"
        file.write_text(text)
        lines.append(f"assert cli.main({[*command.format(tmp_path).split(), '--levels', str(file)]}) == 2")
    lines += [f"assert cli.main({[*command.format(tmp_path).split(), '--levels', 'webshop/train']}) == 2"]
    lines += ["assert 'torch' not in sys.modules"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for line, (_, said) in zip(done.stderr.splitlines(), BAD.values(), strict=False):
        assert said in line
    assert {f.suffix for f in tmp_path.iterdir()} == {".xsb"}


def test_a_large_board_is_found_before_the_rest_is_read_and_the_command_that_is_named_works(tmp_path, capsys):
    file, small = tmp_path / "mixed.xsb", tmp_path / "SMALL.xsb"
    file.write_text("\n".join([*SMALL.rows, "", "; wide", *WIDE.rows, "", "broken", "#####", "#@@.#", "#####"]))
    with pytest.raises(LevelError) as error:
        load_items("sokoban", str(file))
    said = one_line(error)
    assert "level 2 (wide) has 3x12 cells; the limit is 10x10" in said
    assert "himac-lite levels read" in said
    words = said[said.index("levels read") : said.index(" keeps")].replace("SMALL.xsb", str(small)).split()
    assert cli.main([*words, "--skip-bad"]) == 0
    assert "1 levels with more than 10 rows or columns skipped" in capsys.readouterr().out
    assert [one.rows for one in load_items("sokoban", str(small))] == [SMALL.rows]
    assert len(load_levels(file, errors="skip")) == 2, "environments take boards of any size"
    assert cli.main(["levels", "read", str(file), "--skip-bad", "--max-side", "2"]) == 2


# Lengths


def test_progress_is_told_every_five_seconds(monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(registry.time, "monotonic", lambda: float(next(clock)))
    said: list[str] = []
    known = [replace(SMALL, optimal_moves=n) for n in (3, 1, 4, 1, 5, 9)]
    assert list(lengths(SokobanTask(), known, said.append)) == [3, 1, 4, 1, 5, 9]
    assert [line.partition(";")[0] for line in said] == [
        "finding optimal lengths: 3 of 6 in 6 s",
        "finding optimal lengths: 6 of 6 in 12 s",
    ]


def test_a_length_is_searched_once_and_only_if_the_file_has_none(searches):
    own = SokobanTask()
    assert [own.difficulty(replace(SMALL, optimal_moves=7)), own.difficulty(SMALL), own.difficulty(SMALL)] == [7, 1, 1]
    assert own.difficulty(UNSOLVABLE) == 0
    assert [level.rows for level in searches] == [SMALL.rows, UNSOLVABLE.rows]


def test_levels_without_a_known_length_join_last():
    known = [replace(SMALL, optimal_moves=n) for n in (3, 20)]
    every = [UNSOLVABLE, *known]
    assert curriculum(every, SokobanTask(), 1.0, 0.0) == known[:1]
    assert curriculum(every, SokobanTask(), 1.0, 0.5) == every
    assert curriculum([UNSOLVABLE], SokobanTask(), 1.0, 0.0) == [UNSOLVABLE]


def test_levels_without_a_known_length_are_in_no_bin():
    pytest.importorskip("torch")
    from himac_lite.rollout.evaluate import play_random, score

    every = [UNSOLVABLE, replace(SMALL, optimal_moves=1)]
    played = play_random(SokobanTask(), every, 0, ReturnRule())
    assert {name: part["n"] for name, part in score("random", SokobanTask(), every, played).by_length.items()} == {
        "0-8": 1
    }


@pytest.fixture
def small_run(tiny_model: Path, tmp_path: Path) -> Callable[..., Train]:
    """The configuration of one iteration on a file of levels without lengths."""
    from himac_lite.config import Model, Rollout

    file = tmp_path / "own.xsb"
    save_levels([SMALL, UNSOLVABLE], file)

    def made(**rollout: Any) -> Train:
        return Train(
            train_levels=str(file), iterations=1, validate_every=0, test_limit=1, probe_levels=0,
            model=Model(str(tiny_model), rank=4, alpha=8),
            rollout=Rollout(levels=2, group=2, max_steps=3, subgoal_budget=3, **({"min_length": 0} | rollout)),
        )  # fmt: skip

    return made


def test_nothing_is_searched_that_no_setting_needs(small_run, searches, tmp_path):
    from himac_lite.runs.training import train

    run = train(small_run(), tmp_path / "run")
    assert run.manifest["levels"]["train"]["n"] == 2
    assert searches == []


def test_what_a_setting_needs_is_searched_and_unsolved_levels_are_told(small_run, searches, tmp_path):
    from himac_lite.runs.training import train

    said: list[str] = []
    run = train(small_run(min_length=1, curriculum=0.5), tmp_path / "run", say=said.append)
    assert run.manifest["levels"]["train"]["n"] == 1
    assert len(searches) == 2
    assert any("1 of 2 levels of" in line and "no known solution" in line for line in said)


def test_everything_else_is_refused_before_a_search(small_run, searches, tmp_path):
    from himac_lite.config import Model
    from himac_lite.errors import ModelError
    from himac_lite.runs.training import train

    config, door = small_run(min_length=1), tmp_path / "door"
    door.write_text("a file where a folder should be")
    refusals: list[tuple[Train, Path, type[HimacError]]] = [
        (config, door / "run", RunError),
        (replace(config, model=Model("/no/such/model")), tmp_path / "run", ModelError),
        (replace(config, validation_levels="gone.xsb"), tmp_path / "run", LevelError),
        (replace(config, variant="unheard-of"), tmp_path / "run", ConfigError),
    ]
    for refused, out, kind in refusals:
        with pytest.raises(kind) as error:
            train(refused, out)
        one_line(error)
    assert searches == []
    assert not (tmp_path / "run").exists()


# Commands that work long


def test_solve_prints_each_level_when_it_is_solved_and_can_be_interrupted(tmp_path, monkeypatch, capsys):
    file = tmp_path / "two.xsb"
    save_levels([SMALL, UNSOLVABLE], file)
    real = solver.search

    def interrupted(level: Level, *args: Any, **kwargs: Any) -> Any:
        if level.title == "no way":
            raise KeyboardInterrupt
        return real(level, *args, **kwargs)

    monkeypatch.setattr(solver, "search", interrupted)
    assert cli.main(["levels", "solve", str(file)]) == 130
    printed = capsys.readouterr()
    assert printed.out == "level 1 (small): 1 moves, 1 pushes: R\n"
    assert "--resume" not in printed.err


def test_solve_writes_lengths_that_are_then_known(tmp_path, searches, capsys):
    file, solved = tmp_path / "two.xsb", tmp_path / "solved.xsb"
    save_levels([SMALL, UNSOLVABLE], file)
    for optimal in ("moves", "pushes"):
        assert cli.main(["levels", "solve", str(file), "--out", str(solved), "--optimal", optimal]) == 0
        found = load_levels(solved)
        assert [(one.optimal_moves, one.optimal_pushes) for one in found] == [(1, 1), (None, None)]
    assert SokobanTask().difficulty(found[0]) == 1
    assert searches == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("levels generate {0}/no/x.xsb", "is not a folder"),
        ("levels generate {0}/x.slc", "SLC is only read"),
        ("levels solve {0}/own.xsb --out {0}/own.xsb/x.xsb", "is not a folder"),
        ("levels read {0}/own.xsb --out {0}/x.slc", "SLC is only read"),
        ("sft --out {0}/own.xsb/adapter", "is not a folder"),
        ("pretrain --out {0}/own.xsb/base", "is not a folder"),
        ("train --out {0}/own.xsb/run", "is not a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(words, said, tmp_path, monkeypatch, capsys):
    def work(*_: Any, **__: Any) -> None:
        pytest.fail("it worked first")

    if not words.startswith("levels"):
        pytest.importorskip("torch")
        monkeypatch.setattr("himac_lite.policy.memory.before_loading", work)
        monkeypatch.setattr("himac_lite.pretraining.driver.make_model", work)
    monkeypatch.setattr(generator, "generate", work)
    monkeypatch.setattr(solver, "search", work)
    save_levels([SMALL], tmp_path / "own.xsb")
    assert cli.main(words.format(tmp_path).split()) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["own.xsb"]


def test_a_folder_that_can_be_written_is_not_made(tmp_path):
    storage.refuse_unwritable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_the_run_began_names_no_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from himac_lite.runs import training

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert cli.main(["train", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("himac-lite: interrupted")


@pytest.mark.parametrize("n", [9, 10, 11, 1_000])
def test_boards_up_to_the_limit_are_read(n, tmp_path):
    """A corridor of this length, walls included."""
    save_levels([Level(("#" * n, "#@$.".ljust(n - 1) + "#", "#" * n))], tmp_path / "a")
    if n <= 10:
        assert len(load_items("sokoban", str(tmp_path / "a"))) == 1
    else:
        with pytest.raises(LevelError, match=f"has 3x{n} cells; the limit is 10x10"):
            load_items("sokoban", str(tmp_path / "a"))
