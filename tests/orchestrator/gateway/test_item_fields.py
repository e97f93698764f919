"""What a push says of itself: fields, JSON, paths and forms, good and hostile. Without a server."""

import asyncio
from urllib.parse import quote

import pytest

from orchestrator.gateway.guard.bodies import parse_json
from orchestrator.gateway.items.fields import PushFields, check_fields, read_fields
from orchestrator.gateway.items.forms import read_form
from orchestrator.gateway.items.paths import checked_path
from orchestrator.gateway.problems import ProblemError


def test_fields_come_from_the_query_and_from_headers():
    headers = {b"pigeonhole-item": b"belt%2F%C3%A4", b"pigeonhole-age-ms": b"20"}

    fields = check_fields(read_fields(b"pass=2&deadline_ms=250.5&wait=deadline", headers))

    assert fields == PushFields("belt/ä", 2, 0.2505, 0.02, "deadline")


def test_an_item_without_a_name_gets_one_of_its_own():
    assert check_fields({}).item != check_fields({}).item


@pytest.mark.parametrize(
    "query",
    [
        "deadline_ms=0", "deadline_ms=-1", "deadline_ms=1e999", "deadline_ms=nan", "deadline_ms=3600001", "pass=0",
        "pass=x", "pass=1.5", "pass=99999999999999999999", "item=", "item=" + "x" * 1001, "item=%ff", "deadline=5",
        "wait=maybe", "age_ms=-1", "age_ms=inf", "&".join(["wait"] * 30), "wait=%00", "\u00e4=1",
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_an_error(query):
    with pytest.raises(ProblemError) as caught:
        check_fields(read_fields(query.encode(), {}))

    assert (caught.value.status_code, caught.value.code) == (400, "invalid")


@pytest.mark.parametrize("value", [b"caf%E9", b"caf\xe9", "caf\u00e9".encode(), b"%ED%A0%80", b"a%ff"])
@pytest.mark.parametrize("header", [b"pigeonhole-item", b"pigeonhole-pass"])
def test_a_header_that_is_no_percent_encoded_utf8_is_an_error(header, value):
    with pytest.raises(ProblemError, match=f"the header {header.decode()} is text in UTF-8, percent-encoded") as caught:
        read_fields(b"", {header: value})

    assert caught.value.status_code == 400


@pytest.mark.parametrize("value", [True, None, [], {}, "1 ", "٣", 1e400, 10**400], ids=lambda value: f"{value!r:.9}")
@pytest.mark.parametrize("name", ["deadline_ms", "pass", "age_ms"])
def test_a_field_of_json_of_the_wrong_kind_is_an_error(name, value):
    with pytest.raises(ProblemError):
        check_fields({name: value})


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000, b'{"a":' * 10_000, b'{"path": NaN}', b'{"path": -Infinity}', b"\xff", b"", b"{", b"[1," * 40,
        b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40, b"1" + b"0" * 60_000,
    ],
)  # fmt: skip
def test_json_bombs_are_errors(body):
    with pytest.raises(ProblemError) as caught:
        parse_json(body)

    assert caught.value.status_code == 400


def test_json_of_some_levels_is_read():
    assert parse_json(b"[" * 30 + b"]" * 30)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "images"
    root.mkdir()
    (root / "1.jpg").write_bytes(b"an image")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd", "ROOT/../secret", "ROOT/link", "ROOT/up/secret", "ROOT", "ROOT/", "ROOT-more/x", "relative/x",
        "ROOT/\0", "", "ROOT/x/../../secret", "file:///etc/passwd", "//etc/passwd",
    ],
)  # fmt: skip
def test_a_path_that_leads_out_of_the_roots_is_refused_without_a_word_of_what_is_there(root, text):
    with pytest.raises(ProblemError) as caught:
        checked_path(text.replace("ROOT", str(root)), [str(root)])

    assert caught.value.status_code in (400, 403)


def test_a_path_below_a_root_is_taken_also_where_nothing_is_there(root):
    found = [str(checked_path(f"{root}/{name}", [str(root)])) for name in ("1.jpg", "x/../1.jpg", "none", "a\\xffb")]

    assert found == [f"{root}/1.jpg", f"{root}/1.jpg", f"{root}/none", f"{root}/a\udcffb"]


def test_a_line_without_roots_takes_no_path(root):
    with pytest.raises(ProblemError, match="no root"):
        checked_path(f"{root}/1.jpg", [])


def form(*parts, boundary="b"):
    return b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts) + b"--b--\r\n"


def read(body, content_type=b"multipart/form-data; boundary=b", most=1000):
    return asyncio.run(read_form({b"content-type": content_type}, body, most))


IMAGE = ('Content-Disposition: form-data; name="image"; filename="a.jpg"', b"\xff\xd8 bytes \r\n--")
ITEM = ('Content-Disposition: form-data; name="item"', "a/ä".encode())


def test_a_form_has_an_image_and_fields():
    assert read(form(ITEM, IMAGE)) == (b"\xff\xd8 bytes \r\n--", {"item": "a/ä"})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(ITEM), b"multipart/form-data; boundary=b"),
        (form(IMAGE, IMAGE), b"multipart/form-data; boundary=b"),
        (form(("Content-Disposition: form-data; name=other; filename=a", b"1")), b"multipart/form-data; boundary=b"),
        (form(IMAGE, ('Content-Disposition: form-data; name="token"', b"1")), b"multipart/form-data; boundary=b"),
        (form(*[ITEM] * 30, IMAGE), b"multipart/form-data; boundary=b"),
        (
            form(("Content-Disposition: form-data; name=item", b"1" * 100_000), IMAGE),
            b"multipart/form-data; boundary=b",
        ),
        (form(IMAGE), b"multipart/form-data"),
        (form(IMAGE)[:20], b"multipart/form-data; boundary=b"),
        (b"no form", b"multipart/form-data; boundary=b"),
        (b"", b"multipart/form-data; boundary=b"),
        (form(IMAGE), b"multipart/form-data; boundary=" + b"x" * 5000),
        (form((ITEM[0], b"caf\xe9"), IMAGE), b"multipart/form-data; boundary=b"),
        (form(ITEM, IMAGE), b"multipart/form-data; charset=hex; boundary=b"),
        (form(IMAGE).replace(b"a.jpg", b"caf\xe9.jpg"), b"multipart/form-data; boundary=b"),
        (
            form(IMAGE).replace(b'filename="a.jpg"', b"filename*=utf-8''caf%E9.jpg"),
            b"multipart/form-data; boundary=b",
        ),
    ],
)
def test_a_form_that_cannot_be_used_is_an_error(body, content_type):
    with pytest.raises(ProblemError) as caught:
        read(body, content_type)

    assert caught.value.status_code == 400


def test_an_image_of_a_form_that_is_too_large_is_413():
    with pytest.raises(ProblemError) as caught:
        read(form(IMAGE), most=5)

    assert caught.value.status_code == 413


def test_any_name_of_an_item_survives():
    names = ["0001.jpg", "belt/7", "a b&c=d", "ü", "%2F", "a\\xffb", "\u2028"]

    assert [check_fields(read_fields(f"item={quote(name, safe='')}".encode(), {})).item for name in names] == names
