"""The database of the environment sql: it is read, and nothing else, in bounded time and space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from posttrain.environments.kinds.sql import CELL, ROWS, Database

PEOPLE = tuple((number, f"n{number}", "Rome") for number in range(30))


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database({"people": PEOPLE, "sales": ((1, 1, 2),) * 30})
    yield made
    made.close()


def test_a_result_has_the_names_of_its_columns_and_its_first_rows(database: Database) -> None:
    lines = database.read("SELECT id, name FROM people").split("\n")
    assert lines[:2] == ["id | name", "0 | n0"] and len(lines) == 1 + ROWS + 1 and lines[-1].startswith("…")
    assert database.read("SELECT NULL a, 1.5 b, x'ff' c, CAST(x'ff' AS TEXT) d") == "a | b | c | d\nNULL | 1.5 | ff | \ufffd"
    assert len(database.read(f"SELECT '{'x' * 500}' a").split("\n")[1]) == CELL + 1


ENDLESS = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM a)"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("DROP TABLE people", "not authorized"),
        ("DELETE FROM people", "not authorized"),
        ("INSERT INTO people VALUES (1, 'a', 'b')", "not authorized"),
        ("CREATE TEMP TABLE t(x)", "not authorized"),
        ("ATTACH '{folder}/x.db' AS x", "not authorized"),
        ("VACUUM INTO '{folder}/x.db'", "authoriz"),
        ("PRAGMA query_only = OFF", "not authorized"),
        ("SELECT * FROM pragma_database_list", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT readfile('/etc/hostname')", "no such function"),
        ("SELECT random()", "not authorized"),
        ("SELECT date('now')", "not authorized"),
        ("SELECT zeroblob(1000000000)", "not authorized"),
        ("SELECT printf('%.*c', 1000000000, 'x')", "not authorized"),
        ("WITH RECURSIVE a(s) AS (SELECT 'a' UNION ALL SELECT s||s FROM a) SELECT max(length(s)) FROM a", "too big"),
        (f"{ENDLESS} SELECT count(*) FROM a", "too long"),
        (f"{ENDLESS} SELECT n FROM a ORDER BY n DESC", "too long"),
        (f"{ENDLESS} SELECT group_concat(n) FROM a", ""),
        ("SELECT count(*) FROM sales a, sales b, sales c, sales d, sales e, sales f", "too long"),
        (f"SELECT {'(' * 900}1{')' * 900}", ""),
        (f"SELECT {'1+' * 900}1", ""),
        ("SELECT 1; DROP TABLE people", "one statement"),
        ("SELECT ?", "bindings"),
        ("SELECT 1\0", "null character"),
        ("SELECT '\ud800'", "surrogates"),
        ("", "nothing is selected"),
        ("x" * 10**6, "too large"),
    ],
)
def test_anything_else_is_told_why_not_and_changes_nothing(database: Database, query: str, why: str, tmp_path: Path) -> None:
    said = database.read(query.replace("{folder}", str(tmp_path)))
    assert said.startswith("Error: ") and why in said and len(said) < 300
    assert not list(tmp_path.iterdir())
    assert database.read("SELECT count(*) n FROM people") == "n\n30"
