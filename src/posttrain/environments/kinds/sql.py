"""Questions on a generated database, which the tool query reads. It can do nothing else, and nothing that takes long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.environments.base import Environment, Start
from posttrain.environments.kinds._answering import Answering, AnsweringConfig, Question
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.tools import Failed

ROWS, CELL = 20, 60
"""Rows of a result that are shown, and characters of a value."""
QUERY, STRING = 2_000, 4_000
"""Characters of a query, and bytes of any value in it."""
STEPS, BETWEEN = 400, 1_000
"""Instructions of SQLite's machine that a query may take: so many times so many."""
SCHEMA = (
    "CREATE TABLE people (id INTEGER, name TEXT, city TEXT)",
    "CREATE TABLE items (id INTEGER, name TEXT, price INTEGER)",
    "CREATE TABLE sales (person INTEGER, item INTEGER, pieces INTEGER)",
)
_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
_FUNCTIONS = frozenset(
    ("abs", "avg", "coalesce", "count", "dense_rank", "group_concat", "ifnull", "iif", "length", "like", "lower", "max",
     "min", "nullif", "rank", "round", "row_number", "substr", "substring", "sum", "total", "trim", "upper")
)  # fmt: skip
_NAMES = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jana",
    "Kai",
    "Lea",
    "Max",
    "Nora",
    "Otto",
    "Pia",
)
_CITIES = ("Bern", "Graz", "Lyon", "Oslo", "Rome", "Turin")
_ITEMS = ("apples", "beans", "cheese", "dates", "eggs", "figs", "grapes", "honey")
_KINDS = (
    ("How many people live in {city}?", "SELECT count(*) FROM people WHERE city = '{city}'"),
    ("How many pieces of {item} were sold?", "{sold} WHERE items.name = '{item}'"),
    ("How many pieces did {name} buy?", "{sold} WHERE people.name = '{name}'"),
    ("How many pieces were sold to people who live in {city}?", "{sold} WHERE people.city = '{city}'"),
    ("What did {name} pay for everything?", "{paid} WHERE people.name = '{name}'"),
    ("What was paid for {item} in all?", "{paid} WHERE items.name = '{item}'"),
    ("What do the items that {name} bought cost at most, by the piece?", "{dearest} WHERE people.name = '{name}'"),
)
_FROM = "FROM sales JOIN items ON items.id = sales.item JOIN people ON people.id = sales.person"
_SUMS = {
    "sold": f"SELECT coalesce(sum(pieces), 0) {_FROM}",
    "paid": f"SELECT coalesce(sum(pieces * price), 0) {_FROM}",
    "dearest": f"SELECT coalesce(max(price), 0) {_FROM}",
}


class SqlConfig(AnsweringConfig):
    """A question on the tables people, items and sales, with the tool query; the answer after ####."""

    name: Literal["sql"] = "sql"
    people: Annotated[int, Field(ge=2, le=len(_NAMES))] = 8
    """In the database."""
    sales: Annotated[int, Field(ge=1, le=200)] = 24
    """In the database."""
    question: Annotated[str, fields("question", needed=True)] = (
        "There are the tables people(id, name, city), items(id, name, price) and sales(person, item, pieces), whose person "
        "and item are ids.\n{question}\nUse the tool query, and write the answer alone on the last line, after ####."
    )
    """What the policy is asked; {question} is the task's."""

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Sql(self)


@dataclass(frozen=True, slots=True)
class SqlTask:
    """A database, a question, and the query that answers it."""

    rows: Mapping[str, tuple[tuple[int | str, ...], ...]]
    text: str
    query: str


class Sql(Answering):
    """An `Environment`."""

    _config: SqlConfig

    def __init__(self, config: SqlConfig) -> None:
        self._database: Database | None = None
        super().__init__(config, self.query)

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        task = task_of(columns, self._config)
        await self.close()
        self._database = Database(task.rows)
        return self.begin(Question(task.text, self._database.read(task.query).split("\n")[-1]))

    def query(self, sql: Annotated[str, Field(description="A SELECT statement of SQLite.")]) -> str:
        """Reads the database."""
        return "" if self._database is None else self._database.read(sql)

    async def close(self) -> None:
        """See `Environment`."""
        if self._database is not None:
            self._database.close()
            self._database = None


class Database:
    """A database in memory that can only be read, in bounded time and space.

    Args:
        rows: of each table of SCHEMA.
    """

    def __init__(self, rows: Mapping[str, tuple[tuple[int | str, ...], ...]]) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for table in SCHEMA:
            self._connection.execute(table)
        for table, values in rows.items():
            self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", values)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, STRING),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, QUERY),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
            (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 10),
            (sqlite3.SQLITE_LIMIT_COLUMN, 50),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        ):
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(_allowed)
        self._left = 0
        self._connection.set_progress_handler(self._tick, BETWEEN)

    def read(self, sql: str) -> str:
        """The names of a result's columns and its first rows; or why there are none."""
        self._left = STEPS
        try:
            cursor = self._connection.execute(sql)
            rows = cursor.fetchmany(ROWS + 1)
            names = [column[0] for column in cursor.description or ()]
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            return Failed(f"Error: {'it takes too long' if str(error) == 'interrupted' else error}")
        if not names:
            return Failed("Error: nothing is selected")
        lines = [" | ".join(_shown(value) for value in row) for row in (names, *rows[:ROWS])]
        return "\n".join([*lines, f"… only the first {ROWS} rows"] if len(rows) > ROWS else lines)

    def close(self) -> None:
        """Frees it."""
        self._connection.close()

    def _tick(self) -> bool:
        self._left -= 1
        return self._left < 0


def task_of(columns: Mapping[str, Any], config: SqlConfig) -> SqlTask:
    """The task that a row asks for. Questions of a split are not asked of the same database in another."""
    return drawn(columns, lambda draw: _task(draw, config), lambda task: f"{task.rows}{task.text}")


def _allowed(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    reads = action in _READS or (action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS)
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _shown(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else "NULL" if value is None else str(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"


def _task(draw: Random, config: SqlConfig) -> SqlTask:
    names = draw.sample(_NAMES, config.people)
    rows: dict[str, tuple[tuple[int | str, ...], ...]] = {
        "people": tuple((number, name, draw.choice(_CITIES)) for number, name in enumerate(names, 1)),
        "items": tuple((number, item, draw.randint(1, 20)) for number, item in enumerate(_ITEMS, 1)),
        "sales": tuple(
            (draw.randint(1, config.people), draw.randint(1, len(_ITEMS)), draw.randint(1, 9)) for _ in range(config.sales)
        ),
    }
    text, query = draw.choice(_KINDS)
    filled = {"city": draw.choice(_CITIES), "item": draw.choice(_ITEMS), "name": draw.choice(names)}
    return SqlTask(rows, text.format(**filled), query.format(**filled, **_SUMS))
