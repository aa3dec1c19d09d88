"""Findings are counted by kind, in the order of their first examples, against a report written by hand."""

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings


def test_a_report(capsys):
    findings = Findings()
    for place in range(5):
        findings.error("bad boxes", f"box\n {place}")
    findings.note("no labels", "video 1")
    findings.error("no masks", "track 2")
    assert findings.num_errors == 6
    assert findings.lines() == [
        "error: 5 × bad boxes",
        "    box 0",
        "    box 1",
        "    box 2",
        "    … and 2 more",
        "error: 1 × no masks",
        "    track 2",
        "note: 1 × no labels",
        "    video 1",
    ]
    with pytest.raises(UserError, match=r"^a\.json: 6 errors; nothing written$"):
        findings.conclude("a.json", "; nothing written")
    assert capsys.readouterr().out.splitlines() == findings.lines()


def test_notes_are_no_errors(capsys):
    findings = Findings()
    findings.note("no labels", "video 1")
    findings.conclude("a.json")
    assert capsys.readouterr().out.endswith("a.json: nothing wrong\n")


def test_findings_keep_counts_and_the_first_examples():
    findings = Findings()
    for number in range(5):
        findings.error("odd things", f"thing {number}\nof two lines")
    findings.note("fine things", "one")
    assert findings.num_errors == 5
    assert findings.lines() == [
        "error: 5 × odd things",
        *(f"    thing {number} of two lines" for number in range(3)),
        "    … and 2 more",
        "note: 1 × fine things",
        "    one",
    ]
