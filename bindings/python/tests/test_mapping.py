"""A bank is a mutable mapping."""
from collections.abc import MutableMapping

import kist
import pytest


def test_is_a_mutable_mapping(bank):
    assert isinstance(bank, MutableMapping)
    assert isinstance(bank, kist.Bank)


def test_set_get_delete(bank):
    bank["key"] = b"value"
    bank[b"other"] = b""
    assert bank["key"] == bank[b"key"] == b"value"
    assert bank["other"] == b""
    assert "key" in bank and b"other" in bank and "no" not in bank
    assert len(bank) == 2 and bool(bank)
    del bank["key"]
    assert "key" not in bank and list(bank) == [b"other"]


def test_a_missing_key_is_a_key_error_that_names_it(bank):
    for act in (lambda: bank["none"], lambda: bank.__delitem__("none"), lambda: bank.pop("none")):
        with pytest.raises(KeyError) as caught:
            act()
        assert caught.value.args == ("none",)


def test_str_keys_stand_for_their_utf8(bank):
    bank["Schlüssel"] = b"1"
    assert bank["Schlüssel".encode()] == b"1"
    assert list(bank) == ["Schlüssel".encode()]
    with pytest.raises(UnicodeEncodeError):
        bank["\udc80"]


def test_get_with_a_default(bank):
    bank["key"] = b"value"
    assert bank.get("key") == bank.get("key", 1) == b"value"
    assert bank.get("none") is None and bank.get("none", 1) == 1


def test_pop_popitem_setdefault_update_clear(bank):
    bank.update({"a": b"1", "b": b"2"}, c=b"3")
    assert bank.pop("a") == b"1" and bank.pop("a", None) is None
    assert bank.setdefault("b", b"x") == b"2"
    assert bank.setdefault("d", b"4") == b"4" and bank["d"] == b"4"
    key, value = bank.popitem()
    assert key not in bank and value in (b"2", b"3", b"4")
    bank.clear()
    assert not bank and bank == {}
    with pytest.raises(KeyError):
        bank.popitem()


def test_views_of_keys_values_items(bank):
    content = {b"%d" % i: b"v%d" % i for i in range(1000)}
    bank.update(content)
    assert set(bank.keys()) == set(content) and len(bank.keys()) == 1000
    assert sorted(bank.values()) == sorted(content.values())
    assert dict(bank.items()) == content and bank == content
    assert (b"5", b"v5") in bank.items() and b"v5" in bank.values() and b"5" in bank.keys()
    assert bank.keys() & {b"1", b"x"} == {b"1"}
    for key, value, meta in bank.entries():
        assert content[key] == value and meta.size == len(value)


def test_is_equal_to_mappings_with_the_same_content(bank, store):
    bank["a"] = b"1"
    other = store.bank("other")
    assert bank == bank and bank != other and bank == {b"a": b"1"}
    other["a"] = b"1"
    assert bank == other and hash(bank) != hash(other)
