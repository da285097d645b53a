"""Rules are read by the names of their classes, whatever the order of the file."""

import pytest

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.masks.rules import Rule, read_rules


def test_rules_are_those_of_their_classes_where_the_keys_were_sorted(tmp_path):
    rules = {"wall": Rule(200), "cell": Rule(30, presence=7)}
    content = {name: {"rule": rules[name].to_dict()} for name in sorted(rules)}
    write_json(tmp_path / "threshold.json", {"classes": content})
    found = read_rules(tmp_path / "threshold.json", ["wall", "cell"])
    assert found == rules and list(found) == ["wall", "cell"]
    with pytest.raises(UserError, match="threshold.json holds no rules"):
        read_rules(tmp_path / "threshold.json", ["wall", "nucleus"])
