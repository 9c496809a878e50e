"""Build the notebooks from their masters: `python notebooks/build.py`; `--check` reports notebooks that are stale.

A master is a py:percent file in notebooks/src/. It gives two notebooks: the student's, with a stub for every solution,
and the one in notebooks/solutions/. Solutions are between ``### BEGIN SOLUTION`` and ``### END SOLUTION``.
Never edit a notebook by hand. Notebooks have no outputs, and the same master always gives the same bytes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION$", re.M | re.S)


def notebook(master: str, solved: bool) -> str:
    """The .ipynb text for a master's text. Raises ValueError for a solution mark without its partner."""
    book = jupytext.reads(master, fmt="py:percent")
    book.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(book.cells):
        cell["id"] = str(number)  # the ids that nbstripout gives
        cell["metadata"] = nbformat.from_dict({})
        cell["source"] = SOLUTION.sub(_solution if solved else _stub, cell["source"])
        if "### " in cell["source"] and "SOLUTION" in cell["source"]:
            raise ValueError(f"cell {number} has a solution mark without its partner")
    nbformat.validate(book)
    return nbformat.writes(book, version=4) + "\n"


def _stub(found: re.Match[str]) -> str:
    return f"{found[1]}raise NotImplementedError"


def _solution(found: re.Match[str]) -> str:
    return found[2].rstrip("\n")


def made() -> dict[Path, str]:
    """The path of every notebook, with the text that it should have."""
    out = {}
    for master in sorted((HERE / "src").glob("*.py")):
        text = master.read_text("utf-8")
        out[HERE / f"{master.stem}.ipynb"] = notebook(text, solved=False)
        out[HERE / "solutions" / f"{master.stem}.ipynb"] = notebook(text, solved=True)
    return out


def out_of_step() -> list[str]:
    """One sentence for each notebook that differs from its master."""
    wanted = made()
    found = {*HERE.glob("*.ipynb"), *(HERE / "solutions").glob("*.ipynb")}
    orphans = [f"{path.relative_to(HERE)} has no master" for path in sorted(found - set(wanted))]
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text("utf-8") != text]
    return orphans + [f"{path.relative_to(HERE)} differs from its master" for path in stale]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        problems = out_of_step()
        print(
            "\n".join([*problems, "run: python notebooks/build.py"] if problems else ["notebooks match their masters"])
        )
        return 1 if problems else 0
    if arguments:
        print("usage: python notebooks/build.py [--check]")
        return 2
    for path, text in made().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
