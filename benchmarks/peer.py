"""Another implementation in a process of its own, timed in turns with ours."""

import json
import subprocess
import sys
from pathlib import Path

PEERS = {"torchvision": "peer_torchvision.py"}
KEYS = ("seconds", "cpu_seconds")


def add_arguments(parser):
    """The flags by which a benchmark is asked for a peer."""
    parser.add_argument("--against", choices=PEERS, help="time this too, call by call in turns with ours")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has it")


class Peer:
    """A process of `name`'s script: `task` is what it shall do, `round` times that once.

    A process of its own, so that each has its own threads and memory; it sleeps while ours works. Leaves with
    one line where the peer is not installed.
    """

    def __init__(self, name, python, **task):
        script = Path(__file__).with_name(PEERS[name])
        command = [python, str(script), json.dumps(task)]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def round(self):
        """{stage: (seconds, processor seconds)} of one call, stages named after the peer."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return {f"{self.name}: {stage}": tuple(times) for stage, times in self._answer().items()}

    def close(self):
        """End the process."""
        self._process.communicate()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            reason = (self._process.stderr.read().strip() or "it ended").splitlines()[-1]
            sys.exit(
                f"error: {self.name} does not run ({reason}); pip install torch {self.name} in an "
                "environment of its own and name its Python by --peer-python"
            )
        return json.loads(line)


def ratios(rows, pairs):
    """Print how many times ours a peer's time is; returns the same as a dict.

    `rows`: of `common.clock`; `pairs`: {title: (our rows, the peer's rows)}, whose sums are compared.
    """
    print(f"\n{'beside the peer, ms':<20} {'ours':>10} {'theirs':>10} {'ratio':>7}   in processor time")
    found = {}
    for title, sides in pairs.items():
        sums = [{key: sum(rows[name][key] for name in names) for key in KEYS} for names in sides]
        found[title] = {key: sums[1][key] / sums[0][key] for key in KEYS}
        columns = [
            f"{ours[key] * 1e3:10.0f} {theirs[key] * 1e3:10.0f} {found[title][key]:7.2f}"
            for ours, theirs in [sums]
            for key in KEYS
        ]
        print(f"{title:<20}", *columns)
    return found
