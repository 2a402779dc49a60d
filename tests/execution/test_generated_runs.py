"""Runs on data that a model writes first: by the command, in steps, by each who can write; and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recipes import Command, in_cells, recipe, write

CHARACTERS = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
    "tokenizer": {"characters": "01=: "},
}
SURE = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1, "initializer_range": 0.5},
    "tokenizer": "characters",
}
"""Says one thing to each question nearly always, where it is sampled coldly."""
VOTED = {"verdict": "majority", "max_tokens": 1, "n": 8, "temperature": 0.05}
ROWS = [{"prompt": f"{i:b}=", "answer": "1", "completion": "1", "topic": f"{i:b}"} for i in range(6)]
MANY = {"n": 64, "max_tokens": 2, "verdict": "grader"}
ROLLOUT = {"questions_per_step": 2, "n": 2, "max_tokens": 2}


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def collecting(*steps: dict[str, Any], algorithm: str = "sft", data: Any = None, rows: Any = ROWS, **changes: Any) -> str:
    source = {"train": {"path": write(Path("rows.jsonl"), *rows)}, "chat_template": False}
    values = {
        "model": CHARACTERS,
        "algorithm": {"name": algorithm},
        "rewards": [{"name": "exact_match", "reads_cut_off": True}],
    }
    given = {"data": {**source, "collect": list(steps), **(data or {})}, "training": {"max_steps": 1, "rows_per_step": 2}}
    return recipe(**{**values, **given, **changes})


def generate(**options: Any) -> dict[str, Any]:
    return {"generate": {"max_tokens": 2, **options}}


def test_each_step_works_on_what_the_one_before_it_made_and_the_same_seed_writes_the_same_files(posttrain: Command) -> None:
    """Questions of the model's own, answered by it: of the answers those that are the majority's are learnt."""
    made = collecting(
        generate(**{"as": "prompt", "n": 2, "keep": ["unique"], "source": "keep"}),
        generate(**VOTED, keep=["right", {"per_question": 1}]),
        model=SURE,
    )
    code, out, err = posttrain("run", made)
    assert code == 0, err
    first, second = lines("out/collected.jsonl"), lines("out/collected-2.jsonl")
    assert [one["where"][-1] for one in first] == list("123456") and len(first[0]["answers"]) == 2
    asked = {one["where"] for one in second}
    assert {one["where"] for one in first} < asked and any("#" in where for where in asked)
    measured, kept = lines("out/metrics.jsonl")[0], [one for one in second if one["majority"] is not None]
    assert measured["data/collect/rows"] == measured["data/collect-2/questions"] == len(second)
    assert measured["data/train/rows"] == measured["data/collect-2/kept"] == len(kept) > 0
    assert measured["data/collect-2/nothing_kept"] == len(second) - len(kept)
    assert measured["data/collect-2/tokens"] == sum(a["tokens"] for one in second for a in one["answers"])
    assert f"collected-2.jsonl: {len(second)} questions, {8 * len(second)} answers" in out and "tokens in" in out
    again = posttrain("run", made, "--output-dir", "again")
    assert again[0] == 0
    for name in ("collected.jsonl", "collected-2.jsonl"):
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()


def test_a_plan_says_what_will_be_written_and_nothing_is(posttrain: Command) -> None:
    code, out, err = posttrain("run", collecting(generate(**MANY, **{"as": "completion"})), "--dry-run")
    said = "64 of self for each, right by the grader; kept: right, finished; as completion"
    assert code == 0 and said in in_cells(out), (err, out)
    assert not Path("out").exists()


@pytest.mark.parametrize("algorithm", ["dpo", "grpo", "hpt"])
def test_what_is_written_is_read_as_the_algorithm_reads_rows(posttrain: Command, algorithm: str) -> None:
    majority = {"as": "answer", **VOTED, "keep": ["right"]}
    kind = {"dpo": {"as": "chosen"}, "grpo": majority, "hpt": {"as": "demonstration"}}
    rollout = {} if algorithm == "dpo" else {"rollout": ROLLOUT, "training": {"max_steps": 1}}
    model = SURE if algorithm == "grpo" else CHARACTERS
    made = collecting(generate(**{**MANY, **kind[algorithm]}), algorithm=algorithm, model=model, **rollout)
    code, _, err = posttrain("run", made)
    assert code == 0, err
    found, first = lines("out/collected.jsonl"), lines("out/metrics.jsonl")[0]
    right = [sum(answer["right"] is True for answer in one["answers"]) for one in found]
    assert first["data/train/rows"] > 0 and first["data/collect/correct"] == pytest.approx(
        sum(right) / sum(len(one["answers"]) for one in found)
    )
    if algorithm == "dpo":
        assert first["data/train/rows"] == sum(
            min(
                sum(a["right"] is side and a["finished"] and bool(a["text"].strip()) for a in one["answers"])
                for side in (True, False)
            )
            for one in found
        )


def test_rif_and_rejection_sampling_are_steps_too(posttrain: Command) -> None:
    steps = [{"rif": {"k": 64, "max_tokens": 2}}, {"rejection_sampling": {"k": 64, "max_tokens": 2, "per_question": 2}}]
    code, _, err = posttrain("run", collecting(*steps))
    assert code == 0, err
    first, second = lines("out/collected.jsonl"), lines("out/collected-2.jsonl")
    solved = [one["where"] for one in first if any(answer["right"] for answer in one["answers"])]
    assert [one["where"] for one in second] == solved and len(solved) > 0
    assert first[0]["answers"] != second[0]["answers"][:64]  # other random numbers
    metrics = lines("out/metrics.jsonl")[0]
    assert metrics["data/collect/rows"] == len(solved) and metrics["data/train/rows"] >= metrics["data/collect-2/kept"]


def test_a_teacher_and_an_earlier_stage_write(posttrain: Command) -> None:
    """The stage before has learnt nothing, so that its final model is the start model, and writes the same."""
    assert posttrain("run", collecting(generate(n=2, keep=[]), training={"max_steps": 1, "rows_per_step": 2}))[0] == 0
    own = [[answer["text"] for answer in one["answers"]] for one in lines("out/collected.jsonl")]
    teacher = {**CHARACTERS, "teachers": {"big": {"name": "out/final"}}}
    code, _, err = posttrain("run", collecting(generate(n=2, keep=[], writer="big"), model=teacher, output_dir="taught"))
    assert code == 0, err
    still = {"max_steps": 1, "rows_per_step": 2, "learning_rate": 0.0}
    stages = [
        {"name": "first", "data": {"collect": None}, "training": still},
        {"name": "second", "data": {"collect": [generate(n=2, keep=[], writer="first")]}},
    ]
    code, _, err = posttrain("run", collecting(stages=stages, output_dir="staged"))
    assert code == 0, err
    assert [[a["text"] for a in one["answers"]] for one in lines("staged/2-second/collected.jsonl")] == own
    assert lines("taught/collected.jsonl")[0]["writer"] != lines("out/collected.jsonl")[0]["writer"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of one that answers with 1, or by its seed with 2, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": "m", "max_model_len": 64}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, **body})
            text = "1" if body["seed"] % 3 else "2"
            said = {"message": {"content": text}} if "messages" in body else {"text": text}
            self._send({"choices": [{**said, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}})

        def _send(self, body: Any) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 64, True

    running = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("chat", [True, False])
def test_a_server_writes(posttrain: Command, server: tuple[str, list[dict[str, Any]]], chat: bool) -> None:
    url, asked = server
    step = generate(writer={"url": url}, n=3, verdict="grader", prompt_template="{topic}: {prompt}", keep=["right", "unique"])
    code, _, err = posttrain("run", collecting(step, data={"chat_template": chat}))
    assert code == 0, err
    said = [one["messages"][0]["content"] if chat else one["prompt"] for one in asked]
    assert sorted(said) == sorted(f"{i:b}: {i:b}=" for i in range(6) for _ in range(3))
    assert {one["path"] for one in asked} == {"/v1/chat/completions" if chat else "/v1/completions"}
    assert len({one["seed"] for one in asked}) == 18 and {one["max_tokens"] for one in asked} == {2}
    found = lines("out/collected.jsonl")
    assert lines("out/metrics.jsonl")[0]["data/train/rows"] == sum(any(a["right"] for a in one["answers"]) for one in found)


@pytest.mark.parametrize(
    ("steps", "changes", "code", "says"),
    [
        ([generate(writer="big")], {}, 2, "0.generate.writer: big is neither self, nor one of model.teachers (none)"),
        ([generate(writer={"url": "http://far.invalid:80"})], {}, 4, "every row would be sent there"),
        ([generate(writer={"name": "nowhere"})], {}, 4, "nowhere"),
        ([generate(), generate(engine="hf", writer="t")], {"teachers": {}}, 2, "1.generate.writer: t is neither self"),
        ([generate()], {"teachers": {"t": {"name": "a"}}}, 2, "sft learns from no teacher, and t writes nothing"),
        (
            [generate(writer="t")],
            {"teachers": {"t": {"name": "a", "template": "{prompt}"}}},
            2,
            "model.teachers.t.template: t only writes",
        ),
        ([generate(**{"as": "chosen"})], {}, 2, "0.generate.as: sft reads completion, text, and chosen is not among them"),
        ([generate(**{"as": "prompt"})], {}, 2, "a step after this one must write what is learnt"),
        ([generate(**{"as": "completion"})], {"algorithm": "dpo"}, 2, "dpo reads chosen, rejected, and completion is not"),
        ([generate()], {"algorithm": "rwr"}, 2, "nobody says what a completion is worth that is written now, and rwr"),
        ([generate(prompt_template="{prompt} {hint}")], {}, 3, "rows.jsonl:1: prompt_template names the column 'hint'"),
        (
            [generate(), generate(prompt_template="{completion} {hint}")],
            {},
            3,
            "rows.jsonl:1: data.collect.1.generate.prompt_template names the column 'hint'",
        ),
        (
            [generate(verdict="grader")],
            {"rows": [{"prompt": "1="}]},
            3,
            "the columns prompt + answer or prompt + calls or prompt + solution",
        ),
        ([generate(verdict="grader")], {"rows": [*ROWS, {"prompt": "1="}]}, 3, "rows.jsonl:7: "),
        ([generate(max_tokens=4000)], {}, 2, "data.collect.0.generate.max_tokens: 4000 leaves no room"),
        (
            [generate(keep=[{"min_tokens": 9}])],
            {},
            3,
            "of 6 questions with 1 answers each nothing is kept (keep: min_tokens: 9)",
        ),
        (
            [{"rif": {"k": 9, "right": 9, "max_tokens": 1}}, generate()],
            {},
            3,
            "nothing is kept (9 right); out/collected.jsonl has the answers",
        ),
        ([], {}, 2, "data.collect: list should have at least 1 item"),
        (
            [generate()],
            {"data": {"train": {"mix": {name: {"task": "chain", "rows": 2} for name in "ab"}}}},
            2,
            "make rows of one source, and train is a mixture",
        ),
        ([{"rif": {}, "value": {}}], {}, 2, "several are a list of steps, in order"),
    ],
)
def test_what_cannot_be_done_is_refused(
    posttrain: Command, steps: list[Any], changes: dict[str, Any], code: int, says: str
) -> None:
    teachers = changes.pop("teachers", None) if "teachers" in (changes := {**changes}) else None
    model: dict[str, Any] = {"model": {**CHARACTERS, "teachers": teachers}} if teachers is not None else {}
    ended, _, err = posttrain("run", collecting(*steps, **changes, **model))
    assert (ended, says in err) == (code, True), err
