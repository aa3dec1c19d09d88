"""Findings: counts and the first examples of each kind."""

from masktrack_jax.runtime.findings import Findings


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
