"""Other projects, measured in the same run in their own virtual environments.

They cannot be installed together with this package. Each is installed from the package index into a virtual environment
in the cache folder, and runs as a process.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from himac_lite.bench import Figure

REQUIREMENTS = {
    "gym-sokoban": ("gym-sokoban==0.0.6", "gym==0.25.2", "numpy<2"),  # old gym reads np.bool8, which NumPy 2 removed
    "jumanji": ("jumanji>=1.1,<2", "jax"),
    "trl": ("trl>=1.16,<2", "peft>=0.15", "gymnasium>=1.1", "numba>=0.60", "tqdm>=4.66"),
}
TIMEOUT = 900
"""Time limit in seconds of an installation or a run."""


def figures(peer: str, name: str, unit: str, script: str, *arguments: object, note: str = "") -> tuple[Figure, Any]:
    """Run a script in a peer's environment. Returns a figure of the ``rates`` in its JSON output, and that output.

    If the peer cannot be installed or run, the figure's value is NaN and its note says why.
    """
    try:
        python = _installed(peer)
        done = subprocess.run(
            [python, "-W", "ignore", "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False,
            timeout=TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(_last_line(done.stderr))
        printed = json.loads(done.stdout.splitlines()[-1])
    except (OSError, RuntimeError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return Figure(name, unit, float("nan"), (), f"not measured: {_last_line(str(error))[:100]}"), {}
    rates = tuple(printed["rates"])
    return Figure(name, unit, statistics.median(rates), rates, note), printed


def _installed(peer: str) -> str:
    """The Python of the peer's environment, created if missing. Raises `RuntimeError` if pip fails."""
    wanted = REQUIREMENTS[peer]
    key = hashlib.sha256(repr((wanted, sys.version_info[:2])).encode()).hexdigest()[:8]
    folder = _cache() / f"{peer}-{key}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    if not ready.is_file():
        print(f"installing {peer} into {folder} …", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
        if done.returncode:
            raise RuntimeError(f"pip install {' '.join(wanted)}: {_last_line(done.stderr)}")
        ready.write_text("\n".join(wanted), "utf-8")
    return str(python)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "himac-lite" / "peers"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
