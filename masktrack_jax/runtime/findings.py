"""The findings of a check: errors and notes, counted by kind, with the first examples of each."""

from typing import NamedTuple

from masktrack_jax.runtime.errors import UserError, printable

EXAMPLES = 3


class Found(NamedTuple):
    """The number of findings of one kind, and the first few as examples."""

    number: int
    examples: list[str]


class Findings:
    """Errors and notes by kind, in the order in which each kind was first found.

    A kind names the fault in a few words (`boxes that do not fit their masks`). An example is one line that
    says where the fault is.
    """

    def __init__(self) -> None:
        self.errors: dict[str, Found] = {}
        self.notes: dict[str, Found] = {}

    def error(self, kind: str, example: str) -> None:
        """Count an error."""
        _add(self.errors, kind, example)

    def note(self, kind: str, example: str) -> None:
        """Count a finding that is allowed but worth knowing."""
        _add(self.notes, kind, example)

    @property
    def num_errors(self) -> int:
        """The number of errors of all kinds."""
        return sum(found.number for found in self.errors.values())

    def lines(self) -> list[str]:
        """The report: one line with the count of each kind, errors first, followed by its examples."""
        lines = []
        for word, kinds in (("error", self.errors), ("note", self.notes)):
            for kind, (count, examples) in kinds.items():
                lines.append(f"{word}: {count} × {kind}")
                lines += [f"    {example}" for example in examples]
                if count > len(examples):
                    lines.append(f"    … and {count - len(examples)} more")
        return lines

    def summary(self) -> str:
        """The notes as one line: the count and the first example of each kind."""
        return "; ".join(
            f"{count} × {kind} ({examples[0]})" for kind, (count, examples) in self.notes.items()
        )

    def conclude(self, name: str, consequence: str = "") -> None:
        """Print the report on `name`; raises a UserError that counts the errors, if there are any."""
        for line in self.lines():
            print(line)
        if self.num_errors:
            raise UserError(f"{name}: {self.num_errors} errors{consequence}")
        print(printable(f"{name}: nothing wrong"))


def _add(kinds: dict[str, Found], kind: str, example: str) -> None:
    count, examples = kinds.get(kind, Found(0, []))
    if count < EXAMPLES:
        examples = [*examples, printable(" ".join(example.split()))]
    kinds[kind] = Found(count + 1, examples)
