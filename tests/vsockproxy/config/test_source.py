import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.config.source import BROKEN, MAX_FAULTS, MAX_FILE_BYTES, read_source

SCALARS: dict[str, tuple[str, object]] = {
    "a decimal integer": ("443", 443),
    "a negative integer": ("-1", -1),
    "an integer with a sign": ("+5", 5),
    "a float": ("2.5", 2.5),
    "a float with an exponent": ("1e3", 1000.0),
    "true": ("true", True),
    "FALSE": ("FALSE", False),
    "null": ("null", None),
    "a tilde, which is null": ("~", None),
    "nothing, which is null": ("", None),
    "text": ("kms.example", "kms.example"),
    "a range": ("6432-6440", "6432-6440"),
    "quoted digits": ("'443'", "443"),
    "quoted true": ('"true"', "true"),
    "yes, true in YAML 1.1": ("yes", "yes"),
    "off, false in YAML 1.1": ("off", "off"),
    "n, false for some": ("n", "n"),
    "a leading zero, octal in YAML 1.1": ("017", "017"),
    "0o, octal in YAML 1.2": ("0o17", "0o17"),
    "0x, hexadecimal": ("0x1F", "0x1F"),
    "0b, binary in YAML 1.1": ("0b11", "0b11"),
    "sexagesimal in YAML 1.1": ("1:30", "1:30"),
    "an underscore, ignored in YAML 1.1": ("1_000", "1_000"),
    "a date, an object in YAML 1.1": ("2024-01-01", "2024-01-01"),
    "infinity": (".inf", ".inf"),
    "not a number": (".nan", ".nan"),
    "more digits than any number here has": ("1" * 20, "1" * 20),
    "an equals sign, a type of its own in YAML 1.1": ("=", "="),
}


@pytest.mark.parametrize(("text", "value"), SCALARS.values(), ids=SCALARS)
def test_a_scalar_means_what_it_looks_like(text: str, value: object) -> None:
    source = read_source(f"key: {text}\n".encode())
    assert source.faults == ()
    assert source.value == {"key": value}
    assert type(source.value["key"]) is type(value)


def test_every_value_has_its_line() -> None:
    text = b"""\
a: 1
b:
  - x
  - {c: 2,
     d: 3}
  -
    e: [4,
        5]
"""
    assert read_source(text).lines == {
        "": 1,
        "a": 1,
        "b": 2,
        "b[0]": 3,
        "b[1]": 4,
        "b[1].c": 4,
        "b[1].d": 5,
        "b[2]": 7,
        "b[2].e": 7,
        "b[2].e[0]": 7,
        "b[2].e[1]": 8,
    }


FORMS = {
    "carriage returns": (b"a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    "a byte order mark": (b"\xef\xbb\xbfa: 1\n", {"a": 1}),
    "one marked document": (b"---\na: 1\n...\n", {"a": 1}),
    "comments": (b"# x\na: 1 # y\n", {"a": 1}),
    "no document": (b"# nothing\n", None),
    "JSON": (b'{"a": [1, true, null]}', {"a": [1, True, None]}),
    "20 levels": (b"a: " + b"[" * 19 + b"]" * 19, {"a": json.loads("[" * 19 + "]" * 19)}),
}


@pytest.mark.parametrize(("content", "value"), FORMS.values(), ids=FORMS)
def test_a_form_of_yaml_is_read(content: bytes, value: object) -> None:
    source = read_source(content)
    assert (source.value, source.faults) == (value, ())


REFUSED = {
    "a key given twice": (
        b"a: {b: 1, b: 2}\n",
        ["1: a.b: given again (first in line 1): write it once"],
        {"a": {"b": 1}},
    ),
    "a key given three times": (
        b"a: 1\na: {b: 1}\na: 3\n",
        [
            "2: a: given again (first in line 1): write it once",
            "3: a: given again (first in line 1): write it once",
        ],
        {"a": 1},
    ),
    "an anchor": (
        b"a: &x 1\n",
        ["1: a: an anchor (&x): remove it, or put text with '&' in quotes"],
        {"a": 1},
    ),
    "an alias": (
        b"a: [*x]\n",
        ["1: a[0]: an alias (*x): write the value, or put text with '*' in quotes"],
        {"a": [BROKEN]},
    ),
    "an alias as a key": (
        b"*x : 1\nb: 2\n",
        ["1: (file): an alias (*x): write the value, or put text with '*' in quotes"],
        {"b": 2},
    ),
    "a merge key": (
        b"a: {<<: {b: 1}, c: 2}\n",
        ["1: a: a merge key (<<): write the keys out"],
        {"a": {"c": 2}},
    ),
    "a number as a key": (
        b"443: {0: a, '0': b}\n",
        ["1: 443.0: given again (first in line 1): write it once"],
        {"443": {"0": "a"}},
    ),
    "a fraction as a key": (
        b"0.5: 1\n",
        ["1: (file): a key that is no text: put it in quotes"],
        {},
    ),
    "a list as a key": (
        b"? [a, {b: c}]\n: 1\nd: 2\n",
        ["1: (file): a key that is no text: put it in quotes"],
        {"d": 2},
    ),
    "a key with a line feed": (
        b'"a\\nb": 1\n',
        ["1: (file): a key that is empty, too long or not printable: remove it"],
        {},
    ),
    "a key without a name": (
        b"a: {'': 1}\n",
        ["1: a: a key that is empty, too long or not printable: remove it"],
        {"a": {}},
    ),
    "a key beyond reason": (
        b"? " + b"x" * 257 + b"\n: 1\n",
        ["1: (file): a key that is empty, too long or not printable: remove it"],
        {},
    ),
    "an anchor beyond reason": (
        b"a: &" + b"x" * 100 + b" 1\n",
        [f"1: a: an anchor (&{'x' * 80}…): remove it, or put text with '&' in quotes"],
        {"a": 1},
    ),
    "a tag on a scalar": (
        b"a: !!str 443\n",
        ["1: a: a tag (tag:yaml.org,2002:str): remove it, or put text with '!' in quotes"],
        {"a": BROKEN},
    ),
    "a tag that makes objects elsewhere": (
        b"a: !!python/object/apply:os.system [ls]\n",
        [
            "1: a: a tag (tag:yaml.org,2002:python/object/apply:os.system): "
            "remove it, or put text with '!' in quotes"
        ],
        {"a": ["ls"]},
    ),
    "a directive": (
        b"%YAML 1.1\n---\na: 1\n",
        ["1: (file): a YAML directive: remove the line with '%'"],
        {"a": 1},
    ),
    "a second document": (
        b"a: 1\n---\nb: 1\n",
        ["2: (file): a second document: remove the '---' before it"],
        BROKEN,
    ),
    "21 levels": (
        b"a: " + b"[" * 20,
        [f"1: a{'[0]' * 19}: more than 20 levels: write it flatter"],
        BROKEN,
    ),
    "text that is not UTF-8": (
        b"a: 1\nb: \xff\n",
        ["2: (file): this line is not UTF-8: save the file as UTF-8"],
        BROKEN,
    ),
    "more than 4 MiB": (
        b"#" * (MAX_FILE_BYTES + 1),
        ["1: (file): the file is too large: at most 4 MiB are read"],
        BROKEN,
    ),
    "a syntax error in a value": (
        b"a: {b: @x}\n",
        ["1: a.b: text that begins with '@' without quotes: put it in quotes"],
        BROKEN,
    ),
    "a syntax error, after which nothing is known": (
        b"a: 1\nb: [1\n",
        ["2: b: a list that is not closed: end it with ']'"],
        BROKEN,
    ),
}


@pytest.mark.parametrize(("content", "lines", "value"), REFUSED.values(), ids=REFUSED)
def test_a_feature_that_can_surprise_is_refused(
    content: bytes, lines: list[str], value: object
) -> None:
    source = read_source(content)
    assert [f"{f.line}: {f.path}: {f.what}: {f.mend}" for f in source.faults] == lines
    assert source.value == value


def test_faults_are_bounded() -> None:
    source = read_source(b"a:\n" + b"  - !x 1\n" * 1000)
    assert len(source.faults) == MAX_FAULTS
    assert source.value is BROKEN


@given(
    st.binary(max_size=200) | st.text("ab:-[]{}&*!|>'\"%@`#,? \n\t<~", max_size=80).map(str.encode)
)
def test_any_bytes_are_a_value_or_faults(content: bytes) -> None:
    source = read_source(content)
    assert (source.value is not BROKEN) or source.faults
    for fault in source.faults:
        assert fault.line is not None
        assert 1 <= fault.line <= content.count(b"\n") + 2


printable_text = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | printable_text,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(printable_text.filter(bool), children, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_json_means_the_same_here(value: object) -> None:
    source = read_source(json.dumps(value, ensure_ascii=False).encode())
    assert source.faults == ()
    assert source.value == value
