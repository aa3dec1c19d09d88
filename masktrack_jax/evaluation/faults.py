"""The faults of a results file: collected to validate it, raised to score it."""

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings


class Faults(Findings):
    """All faults of a results file, for `validate`.

    A *flaw* is a fault that the servers may reject, but that the official rule scores, usually without a part
    of the results.
    """

    def flaw(self, kind: str, example: str) -> None:
        """Count a fault that does not prevent scoring."""
        self.error(kind, example)


class Refusals(Faults):
    """The faults of a results file to score: an error is raised, flaws are notes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def error(self, kind: str, example: str) -> None:
        """Raise the error."""
        raise UserError(f"{self.name}: {example}")

    def flaw(self, kind: str, example: str) -> None:
        """Count a note."""
        self.note(kind, example)

    def one_liners(self) -> list[str]:
        """The notes, one line for each kind."""
        found = self.notes.items()
        return [f"{number} × {kind}, first {examples[0]}" for kind, (number, examples) in found]
