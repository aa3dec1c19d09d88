"""A message is one line without control characters, whatever names it holds."""

import pickle

from masktrack_jax.runtime.errors import UserError, printable


def test_names_of_files_cannot_change_a_terminal():
    error = UserError("a\x1b[31m.json: \r\n\x00 name '\ud800' \u2028; correct it")
    assert str(error) == r"a\x1b[31m.json: \r\n\x00 name '\ud800' \u2028; correct it"
    assert printable("cow\u202egpj.exe\u2066") == r"cow\u202egpj.exe\u2066"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_other_text_stays():
    text = "גמל Bär/①-\u00a0牛\u200d.json: “–” × …"
    assert printable(text) == text
