"""The page of a run: whole at every state of the folder, and nothing in it acts, loads or tells a secret."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from pages import Page
from posttrain.errors import CheckpointError
from posttrain.execution.report.card import write_card
from posttrain.execution.report.curves import panels, ticks
from posttrain.execution.report.leaving import leave_page
from posttrain.execution.report.page import rendered, write_report
from posttrain.execution.report.record import Record
from recipes import Command, recipe, write

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\x1b]0;gone\x07\u202eevil {{ 7 * 7 }}"
RAN = {
    "algorithm": {"name": "grpo", "kl_coef": 0.0},
    "data": {"train": {"task": "chain", "rows": 8}, "eval": {"test": {"task": "chain", "split": "held_out", "rows": 4}}},
    "rollout": {"questions_per_step": 2, "n": 3, "max_tokens": 6},
    "training": {"max_steps": 2},
    "eval": {"samples": 2},
}


def made(folder: Path, *, values: list[float | None] = [0.5, None, 0.25], completion: str = "1+1=2") -> Path:  # noqa: B006
    """A folder as a run that was broken off leaves it."""
    (folder / "completions").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("model: {name: org/base}\nalgorithm: {name: grpo}\ntraining: {max_steps: 9}\n")
    steps = [{"step": i, "loss": one, "step/tokens": 10, "train/tokens": 8} for i, one in enumerate(values, 1)]
    write(folder / "metrics.jsonl", *steps)
    write(
        folder / "eval.jsonl",
        *({"step": i, "eval/test/pass@1": i / 4, "eval/test/pass@1/low": 0, "eval/test/pass@1/high": 1} for i in (0, 2)),
    )
    row = {"where": "a:1", "prompt": completion, "completion": completion, "tokens": 3, "finish": "stop"}
    for step in (0, 2):
        write(
            folder / "completions" / f"eval-test-step-{step:06d}.jsonl", {**row, "verdict": "wrong", "reference": completion}
        )
    trained = {**row, "step": 1, "reward": 1.0, "rewards": {"a<b": 1.0}, "graded": True, "correct": True, "prefix_tokens": 0}
    write(folder / "completions" / "step-000001.jsonl", trained)
    write(folder / "warnings.jsonl", {"rule": "x", "sentence": completion, "step": 1})
    write(folder / "left_out.jsonl", {"set": "train", "what": "too_long", "where": completion, "reason": completion})
    return folder


def test_what_models_and_data_say_is_inert(tmp_path: Path) -> None:
    text = write_report(made(tmp_path / "run", completion=HOSTILE)).read_text()
    page = Page(text)
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "video", "audio"}
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "style", "action")]
    assert {value[0] for name, value in page.attributes if name == "href"} == {"#"}
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    assert page.text.count("<script>alert(1)</script>") >= 5 and "{{ 7 * 7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)


def test_the_page_of_a_run_that_is_not_finished(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss"')  # is being written
    text = Page(rendered([Record.of(folder)])).text
    assert "not finished: step 3 of 9" in text and "0 [0, 1]" in text and "0.5 [0, 1]" in text
    for name in ("metrics.jsonl", "eval.jsonl", "warnings.jsonl", "left_out.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "completions")
    text = Page(rendered([Record.of(folder)])).text
    assert "No step was made yet" in text and "No evaluation was made" in text and "Nothing was sampled" in text


def test_a_folder_of_no_run_is_refused(tmp_path: Path, posttrain: Command) -> None:
    with pytest.raises(CheckpointError, match=r"has no recipe\.yaml\. Give the output_dir"):
        Record.of(tmp_path)
    code, _, err = posttrain("report", str(tmp_path / "nowhere"))
    assert code == 8 and "is not the folder of a run" in err
    run = str(made(tmp_path / "run"))
    assert posttrain("report", run, run)[0] == 2
    (tmp_path / "run" / "metrics.jsonl").write_text("no json\n")
    code, _, err = posttrain("report", run)
    assert code == 8 and "has a line that is no JSON" in err


def test_lines_are_drawn_where_their_values_are(tmp_path: Path) -> None:
    values = [4.0, 2.0, math.nan, 0.0, 1.0]
    folder = made(tmp_path / "run", values=[None if math.isnan(one) else one for one in values])
    drawn, constant = panels([Record.of(folder)])
    [panel] = [one for one in drawn if one.title == "loss"]
    [line] = panel.lines
    places = {label: y for y, label in panel.y_ticks}
    found = [(kind, float(y)) for kind, y in re.findall(r"([ML])[\d.]+ ([\d.]+)", line.raw)]
    assert [kind for kind, _ in found] == ["M", "L", "M", "L"], "the line is broken where a value is not finite"
    assert [y for _, y in found] == pytest.approx([places["4"], places["2"], places["0"], places["1"]], abs=0.06)
    assert constant == {} and line.dots and not line.smooth
    [evaluated] = [one for one in drawn if one.title == "eval/test/pass@1"]
    assert evaluated.lines[0].band.endswith("Z")


def test_a_metric_that_never_changes_is_a_word_and_an_equal_one_is_no_second_panel(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    lines = [{"step": i, "loss": i, "nll": i, "entropy": 2.0, "step/tokens": 1, "train/tokens": 1} for i in (1, 2, 3)]
    write(folder / "metrics.jsonl", *lines)
    drawn, constant = panels([Record.of(folder)])
    assert constant == {"entropy": "2"} and [one.same for one in drawn if one.title == "nll"] == [["loss"]]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2e-9, 7e-9), (0.981, 0.9821), (5, 5), (0, 0), (-1e30, 2e30)])
def test_ticks_are_round_and_enclose_their_range(low: float, high: float) -> None:
    found = ticks(low, high, 4)
    assert found[0] <= low + 1e-12 * abs(low) and found[-1] >= high - 1e-12 * abs(high) and 2 <= len(found) <= 8
    step = found[1] - found[0]
    assert float(f"{step:.6e}"[0]) in (1, 2, 5) or f"{step:.0e}"[0] in "125"


def test_no_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "someone"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OUR_API_KEY", "correct-horse-battery")
    said = f"correct-horse-battery {home}/data.jsonl https://me:pa55word@host/x hf_{'a' * 30}"
    folder = made(home / "run", completion=said)
    recipe_text = {
        "model": {"name": f"{home}/base"},
        "algorithm": {"name": "grpo", "api_token": "hush-hush"},
        "data": {"path": said},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe_text))
    (folder / "final").mkdir()
    write_card(folder)
    for text in (write_report(folder).read_text(), (folder / "final" / "README.md").read_text()):
        for secret in ("correct-horse", str(home), "someone", "pa55word", "hf_aaaa", "hush-hush"):
            assert secret not in text, secret
        assert "[hidden]" in text


def test_no_secret_of_a_run_is_on_the_screen_or_on_a_page(
    posttrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in the recipe, the environment, the data and the names of folders."""
    home = tmp_path / "home" / "someone"
    (home / "project").mkdir(parents=True)
    monkeypatch.chdir(home / "project")
    for name, value in {"HOME": str(home), "HF_TOKEN": "correct-horse-battery", "WANDB_API_KEY": "staple" * 4}.items():
        monkeypatch.setenv(name, value)
    rows = [{"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(4)]
    write(home / "rows.jsonl", *rows, {"prompt": "no completion", "hf_token": "staple" * 4})
    address = "https://me:pa55word@example.org/x?token=hush-hush"
    recipe(
        data={"train": {"path": str(home / "rows.jsonl")}, "on_bad_row": "skip"},
        output_dir=str(home / "project" / "out"),
        training={"max_steps": 1, "rows_per_step": 4, "extra": {"run_name": f"hf_{'a' * 30} {address}"}},
    )
    said = ""
    for words in (["validate"], ["data", "--html", "data.html"], ["run", "--dry-run"], ["run"], ["run", "--set", "seed=1"]):
        code, out, err = posttrain(words[0], "recipe.yaml", *words[1:])
        assert code == (8 if "seed=1" in words else 0), err
        said += out + err
    said += "".join(posttrain("report", str(home / "project" / "out"))[1:])
    pages = [Path(name).read_text() for name in ("data.html", "out/report.html", "out/final/README.md")]
    (warnings,) = [path.read_text() for path in Path("out").glob("warnings.jsonl")] or [""]
    for text in (said, *pages, warnings):
        for secret in ("correct-horse", "staple", str(home), "someone", "pa55word", "hush-hush", "hf_aaaa"):
            assert secret not in text, secret
    assert "Run: ~/project/out" in said and "~/rows.jsonl" in pages[0] and "[hidden]" in pages[1]


def test_a_run_leaves_its_page_and_its_card(posttrain: Command) -> None:
    """And several runs are drawn in one."""
    assert posttrain("run", recipe(**RAN))[0] == 0
    page, card = Page(Path("out/report.html").read_text()), Path("out/final/README.md").read_text()
    for expected in ("finished", "reward/mean", "test: pass@1", "the same questions at several points", "after step"):
        assert expected in page.text, expected
    [start] = [json.loads(line) for line in Path("out/starts.jsonl").read_text().splitlines()]
    assert start["from_step"] == 0 and start["versions"]["torch"] in page.text and start["versions"]["torch"] in card
    assert card.startswith("---\nlibrary_name: transformers") and "| test: pass@1 |" in card and "- grpo" in card
    shutil.copytree("out", "other")
    code, out, _ = posttrain("report", "out", "other", "--output", "both.html")
    assert code == 0 and "both.html" in out
    both = Page(Path("both.html").read_text())
    assert both.text.count("finished") >= 2 and "Answers" not in both.text
    assert posttrain("report", "out", "other")[0] == 2


def test_odd_names_and_lines_are_no_end_of_the_page(tmp_path: Path) -> None:
    """A set whose name is a pattern, lines that lack what a run writes, two runs of one name, a stage that made no step."""
    folder = made(tmp_path / "a" / "run")
    for step in (0, 2):
        write(folder / "completions" / f"eval-gsm[hard]-step-{step:06d}.jsonl", {"completion": "found me"})
    for name in ("warnings", "left_out", "starts"):
        write(folder / f"{name}.jsonl", {"other": 1})
    assert Page(rendered([Record.of(folder)])).text.count("found me") == 2
    other = made(tmp_path / "b" / "run")
    page = Page(rendered([Record.of(folder), Record.of(other)]))
    assert page.text.count(str(folder)) >= 2 and page.text.count(str(other)) >= 2
    staged = tmp_path / "staged"
    for stage in ("1-first", "2-second"):
        made(staged / stage)
    shutil.copy(folder / "recipe.yaml", staged)
    (staged / "2-second" / "eval.jsonl").write_text('{"step": 0, "eval/test/pass@1": 1}\n')
    (staged / "1-first" / "final").mkdir()
    assert list(Record.of(staged).points) == ["start", "after first"]


def test_a_page_that_fails_is_told_and_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("no json\n")
    leave_page(folder)
    assert "the page or the card of the run was not written (CheckpointError" in caplog.text


def test_a_card_has_no_html_and_whole_tables(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    (folder / "eval.jsonl").write_text(json.dumps({"step": 2, "eval/<img onerror=1>\n|a/pass@1": 0.5}) + "\n")
    (folder / "final").mkdir()
    write_card(folder)
    card = (folder / "final" / "README.md").read_text().partition("# run")[2]
    assert "<img" not in card and "&lt;img onerror=1> \\|a: pass@1" in card


def test_a_card_names_each_data_set_of_a_mixture(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    mix = {"b": {"hub": "some/b", "weight": 2}, "a": {"hub": "some/a"}, "own": {"path": "own.jsonl"}}
    with (folder / "recipe.yaml").open("a") as recipe:
        recipe.write(f"data: {json.dumps({'train': {'mix': mix}})}\n")
    (folder / "final").mkdir()
    write_card(folder)
    assert "datasets:\n- some/a\n- some/b\n" in (folder / "final" / "README.md").read_text()
