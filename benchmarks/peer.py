"""Another implementation in a separate process, timed in turns with ours."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.common import Times

PEERS = {"torchvision": "peer_torchvision.py"}
KEYS = ("seconds", "cpu_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select a peer."""
    parser.add_argument("--against", choices=PEERS, help="also time this, call by call in turns with ours")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has it installed")


class Peer:
    """A process that runs the script of peer `name` with a `task`; `round` times the task once.

    A separate process has its own threads and memory, and it sleeps while ours works. If the peer is not
    installed, the benchmark exits with a one-line message.
    """

    def __init__(self, name: str, python: str, **task: object) -> None:
        script = Path(__file__).with_name(PEERS[name])
        command = [python, str(script), json.dumps(task)]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def round(self) -> dict[str, tuple[float, float]]:
        """Return {stage: (seconds, processor seconds)} of one call; stages start with the peer's name."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return {f"{self.name}: {stage}": tuple(times) for stage, times in self._answer().items()}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            reason = (self._process.stderr.read().strip() or "it ended").splitlines()[-1]
            sys.exit(
                f"error: {self.name} does not run ({reason}); pip install torch {self.name} in an "
                "separate environment, and pass its Python with --peer-python"
            )
        return json.loads(line)


def ratios(
    rows: Mapping[str, "Times"], pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> dict[str, dict[str, float]]:
    """Print and return the peer's time divided by ours.

    Args:
        rows: times by stage, from `common.clock`.
        pairs: for each title, our stages and the peer's stages; the ratio is of their sums.
    """
    print(f"\n{'beside the peer, ms':<20} {'ours':>10} {'theirs':>10} {'ratio':>7}   in processor time")
    found = {}
    for title, sides in pairs.items():
        ours, theirs = ({key: sum(rows[name][key] for name in names) for key in KEYS} for names in sides)
        found[title] = {key: theirs[key] / ours[key] for key in KEYS}
        columns = [
            f"{ours[key] * 1e3:10.0f} {theirs[key] * 1e3:10.0f} {found[title][key]:7.2f}" for key in KEYS
        ]
        print(f"{title:<20}", *columns)
    return found
