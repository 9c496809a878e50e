"""Coverage-guided fuzzing of what reads strangers' text, with atheris (libFuzzer for Python; Linux and macOS).

``pip install atheris``, then ``python tests/reliability/fuzz.py blueprint --minutes 10``, or ``levels``. A finding is
an exception that is no typed answer, more than 20 seconds, or more than 1 GB. Inputs that reach new code are kept in
tests/reliability/corpus/TARGET with ``--keep``, and the fast test tier reads all that are there.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

CORPUS = Path(__file__).parent / "corpus"


def blueprint(data: bytes) -> None:
    """Model output: any text is a blueprint or says why not."""
    from himac_lite.tasks.sokoban.language import MAX_SUBGOALS, parse_blueprint, parse_push
    from himac_lite.types import Invalid

    text = data[1:].decode("utf-8", "surrogateescape" if data[:1] == b"s" else "replace")
    found = parse_blueprint(text, finished=data[:1] != b"u")
    assert (found.invalid is None) == (1 <= len(found.subgoals) <= MAX_SUBGOALS)
    assert not any(isinstance(parse_push(g.text), Invalid) for g in found.subgoals)


def levels(data: bytes) -> None:
    """A level file, as it is opened: levels that are well formed and come back equal when written, or `LevelError`."""
    from himac_lite.errors import LevelError
    from himac_lite.tasks.sokoban.files import MAX_SIDE, format_levels, read_levels
    from himac_lite.tasks.sokoban.levels import _short_lines
    from himac_lite.types import Level

    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape")
    found = list(read_levels(_short_lines(lines), "fuzz"))
    assert found
    for one in found:
        assert isinstance(one, Level | LevelError)
        if isinstance(one, LevelError):
            assert "\n" not in str(one)
            continue
        assert 0 < len(one.rows) <= MAX_SIDE
        assert len({len(row) for row in one.rows}) == 1
        assert set(one.text) <= set(" #.$*@+\n")
        (again,) = read_levels(format_levels([one]).splitlines(), "written")
        assert isinstance(again, Level)
        assert again.rows == one.rows


TARGETS = {"blueprint": blueprint, "levels": levels}


def main() -> None:
    parser = argparse.ArgumentParser(description="coverage-guided fuzzing")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keep", action="store_true", help="write inputs that reach new code into the corpus")
    given = parser.parse_args()
    import atheris

    for hook in ("RegEx", "str"):  # what a pattern or a comparison of text would have matched is tried, too
        atheris.enabled_hooks.add(hook)
    with atheris.instrument_imports(include=["himac_lite"]):
        pass
    corpus = CORPUS / given.target
    options = [
        f"-max_total_time={round(60 * given.minutes)}", "-timeout=20", "-rss_limit_mb=1024", "-max_len=20000",
        "-print_final_stats=1", f"-artifact_prefix={Path.cwd()}/",
    ]  # fmt: skip
    folders = [str(corpus)]
    if not given.keep:  # libFuzzer writes into the first folder and only reads the others
        import tempfile

        folders.insert(0, tempfile.mkdtemp())
    atheris.Setup([sys.argv[0], *options, *folders], TARGETS[given.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
