"""What a check found: every fault and note counted by kind, with the first examples of each."""

from masktrack_jax.runtime.errors import UserError

EXAMPLES = 3


class Findings:
    """Errors and notes by kind, in the order they were first found.

    A kind is a few words that say what is wrong (`boxes that do not fit their masks`); an example says where
    and how, in one line.
    """

    def __init__(self):
        self.errors = {}  # kind → [count, first examples]
        self.notes = {}

    def error(self, kind, example):
        """Count something that is wrong."""
        _add(self.errors, kind, example)

    def note(self, kind, example):
        """Count something that is allowed but worth knowing."""
        _add(self.notes, kind, example)

    @property
    def num_errors(self):
        """How many things are wrong."""
        return sum(count for count, _ in self.errors.values())

    def lines(self):
        """The report: a line a kind with its count, errors first, each followed by its examples."""
        lines = []
        for word, kinds in (("error", self.errors), ("note", self.notes)):
            for kind, (count, examples) in kinds.items():
                lines.append(f"{word}: {count} × {kind}")
                lines += [f"    {example}" for example in examples]
                if count > len(examples):
                    lines.append(f"    … and {count - len(examples)} more")
        return lines

    def conclude(self, name, consequence=""):
        """Print the report; a UserError, which counts the errors in `name`, if there is any."""
        for line in self.lines():
            print(line)
        if self.num_errors:
            raise UserError(f"{name}: {self.num_errors} errors{consequence}")
        print(f"{name}: nothing wrong")


def _add(kinds, kind, example):
    found = kinds.setdefault(kind, [0, []])
    found[0] += 1
    if len(found[1]) < EXAMPLES:
        found[1].append(" ".join(example.split()))
