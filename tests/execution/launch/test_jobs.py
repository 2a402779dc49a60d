"""Files of jobs: right by the tools that read them, without secrets, and refused where they could not run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from recipes import Command, recipe

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
KUBERNETES = "1.31"


def job(posttrain: Command, place: str, *options: str) -> str:
    code, out, err = posttrain("launch", recipe(output_dir="runs/x"), "--on", place, *options)
    assert code == 0, err
    return out


@pytest.mark.parametrize("place", ["docker", "slurm"])
@pytest.mark.parametrize("gpus", ["0", "4"])
def test_scripts_are_clean(place: str, gpus: str, posttrain: Command) -> None:
    odd = "data.train.rows=7"
    text = job(posttrain, place, "--gpus", gpus, "--set", odd, "--option=--comment=two words", "--allow-code")
    checked = subprocess.run(
        [SHELLCHECK, "--shell=bash", "--severity=style", "-"], input=text, text=True, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout
    assert f"--set {odd} --allow-code" in text and ("gpus" in text) == (gpus != "0")


@pytest.mark.parametrize("nodes", ["1", "3"])
@pytest.mark.parametrize("gpus", ["0", "8"])
def test_kubernetes_files_are_valid(nodes: str, gpus: str, posttrain: Command) -> None:
    text = job(posttrain, "kubernetes", "--nodes", nodes, "--gpus", gpus, "--set", "data.train.rows=7")
    documents = list(yaml.safe_load_all(text))
    assert [one["kind"] for one in documents] == ["ConfigMap", *(["Service"] if nodes == "3" else []), "Job"]
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert documents[0]["data"]["recipe.yaml"] == Path("recipe.yaml").read_text()
    made = documents[-1]["spec"]
    [container] = made["template"]["spec"]["containers"]
    assert container["args"] == ["run", "recipe.yaml", "--set", "data.train.rows=7"] and made["completions"] == int(nodes)
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (None if gpus == "0" else gpus)
    ignored = [rule["onExitCodes"]["values"] for rule in made["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert ignored[0] == [75] and 75 not in ignored[1]


def test_a_job_has_the_gpus_that_its_recipe_needs(posttrain: Command) -> None:
    served = {
        "algorithm": {"name": "grpo"},
        "rollout": {"engine": "vllm", "vllm": {"mode": "server", "devices": [4, 5]}, "questions_per_step": 4, "n": 2},
        "training": {"max_steps": 2, "rows_per_step": 8},
        "distributed": {"processes": 4},
        "output_dir": "runs/x",
    }
    code, out, err = posttrain("launch", recipe(**served), "--on", "slurm")
    assert code == 0 and "#SBATCH --gpus-per-node=6\n" in out, err
    code, _, err = posttrain("launch", recipe(**served), "--on", "slurm", "--gpus", "5")
    assert code == 2 and "the recipe needs 6" in err


def test_what_cannot_be_is_refused(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = recipe(output_dir="runs/x")
    for options, expected in (
        (("--on", "ray"), "one of docker, slurm, kubernetes"),
        (("--on", "docker", "--nodes", "2"), "one machine"),
        (("--on", "slurm", "--name", "A_b"), "small letters"),
        (("--on", "slurm", "--time", "soon"), "DAYS-HH:MM:SS"),
        (("--on", "kubernetes", "--set", f"output_dir={tmp_path}/x"), "keeps what is below runs/ alone"),
        (("--on", "docker", "--set", "output_dir=results/x"), "keeps what is below runs/ alone"),
        (("--on", "docker", "--set", "output_dir=runs/../x"), "keeps what is below runs/ alone"),
        (("--on", "kubernetes", "--set", "data.train={path: rows.jsonl}"), "rows.jsonl: the pod has no files of this folder"),
        (("--on", "slurm", "--option", "a\ncurl x | sh"), "a line end"),
        (("--on", "kubernetes", "--image", "x\n y"), "a line end"),
        (("--on", "slurm", "--set", "output_dir=runs/hf_" + "a" * 30), "what looks like a secret"),
    ):
        code, out, err = posttrain("launch", path, *options)
        assert (code, out) == (2, "") and expected in err, (options, err)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/own.py").write_text("def mine(prompts, completions, **columns): return [0.0] * len(prompts)\n")
    beside = tmp_path / "there/coded.yaml"
    sampled = {"rewards": [{"name": "function", "path": "own.py:mine"}], "rollout": {"n": 4, "questions_per_step": 1}}
    shutil.copy(recipe(algorithm={"name": "grpo"}, training={"max_steps": 1}, output_dir="runs/x", **sampled), beside)
    for place, given, expected in (
        ("kubernetes", "there/coded.yaml", "own.py: the pod has no files of this folder"),
        ("docker", str(beside), "own.py: the container has the recipe's file, and not what lies beside it"),
    ):
        code, out, err = posttrain("launch", given, "--on", place)
        assert (code, out) == (2, "") and expected in err, err
    assert posttrain("launch", "there/coded.yaml", "--on", "docker")[0] == 0
    path = recipe(output_dir="runs/x")
    monkeypatch.setenv("SOME_API_KEY", "a-secret-of-ours")
    Path("recipe.yaml").write_text(Path("recipe.yaml").read_text() + "# a-secret-of-ours\n")
    code, out, err = posttrain("launch", path, "--on", "kubernetes")
    assert (code, out) == (2, "") and "a-secret-of-ours" not in err
    monkeypatch.setenv("PATH", "")
    code, _, err = posttrain("launch", recipe(output_dir="runs/x"), "--on", "slurm", "--submit")
    assert code == 4 and "sbatch is not on this machine" in err


def test_what_lies_above_is_seen(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data and models, named from this folder or from the recipe: a container has none but those of this folder."""
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    for folder in ("work", "work/there", "work/model", "model"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("here.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')

    def launched(place: str, given: str, *options: str) -> tuple[int, str]:
        code, _, err = posttrain("launch", given, "--on", place, *options)
        return code, err

    own = recipe(output_dir="runs/x")
    for place, option, expected in (
        ("docker", "data.train={path: ../data.jsonl}", "../data.jsonl: the container reads the folder that the command"),
        ("docker", "data.train={path: ~/data.jsonl}", "~/data.jsonl: the container reads the folder"),
        ("docker", "data.train={path: there/../here.jsonl}", None),
        ("docker", "model={name: ../model}", "../model: the container reads the folder"),
        ("docker", "model={name: model}", None),
        ("kubernetes", "model={name: model}", "model: the pod has no files of this folder"),
        ("kubernetes", "model={name: owner/model}", None),
        ("kubernetes", "data.train={path: ../data.jsonl}", "../data.jsonl: the pod has no files"),
    ):
        code, err = launched(place, own, "--set", option)
        assert (code, (expected or "") in err) == (0 if expected is None else 2, True), (option, err)
    for name, place, expected in (
        ("../here.jsonl", "docker", None),
        ("../here.jsonl", "kubernetes", "../here.jsonl: the pod has no files"),
        ("../../data.jsonl", "docker", "../../data.jsonl: the container reads the folder"),
    ):
        shutil.copy(recipe(output_dir="runs/x", data={"train": {"path": name}}), "there/r.yaml")
        (code, err), whole = launched(place, "there/r.yaml"), str(tmp_path / "work/there/r.yaml")
        assert (code, (expected or "") in err) == (0 if expected is None else 2, True), (name, err)
        assert launched("docker", whole)[0] == 2  # the container has the file alone
        assert launched("slurm", "there/r.yaml")[0] == 0


def test_a_recipe_of_the_package_goes_by_its_name(posttrain: Command) -> None:
    for name in ("quickstart", "pairs", "reward_function"):
        for place, words in {"docker": f"  run {name}\n", "slurm": f'"$process" {name} &\n'}.items():
            code, out, err = posttrain("launch", name, "--on", place)
            assert code == 0 and words in out and "shipped" not in out, err
        code, out, err = posttrain("launch", name, "--on", "kubernetes", "--allow-code")
        [job] = yaml.safe_load_all(out)
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
        assert code == 0 and job["spec"]["template"]["spec"]["containers"][0]["args"] == ["run", name, "--allow-code"], err


def test_a_job_is_sent(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text('#!/bin/sh\ncp "$1" "$KEPT"; echo Submitted batch job 7\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/usr/bin:/bin")
    monkeypatch.setenv("KEPT", str(tmp_path / "kept"))
    code, out, err = posttrain("launch", recipe(output_dir="runs/x"), "--on", "slurm", "--submit")
    assert code == 0 and out.strip() == "Submitted batch job 7", err
    assert (tmp_path / "kept").read_text() == job(posttrain, "slurm")
    sbatch.write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    code, _, err = posttrain("launch", recipe(output_dir="runs/x"), "--on", "slurm", "--submit")
    assert code == 4 and "ended with 1: no such partition" in err


def test_a_recipe_of_any_shape_and_name_is_in_the_file_as_it_is(posttrain: Command) -> None:
    """One that begins with blanks; and a name that YAML would read as a number."""
    text = "  # ours\n" + Path(recipe(output_dir="runs/x")).read_text()
    Path("7b-123.yaml").write_text(text)
    code, out, err = posttrain("launch", "7b-123.yaml", "--on", "kubernetes", "--claim", "123")
    documents = list(yaml.safe_load_all(out))
    assert code == 0 and documents[0]["data"]["recipe.yaml"] == text, err
    assert documents[-1]["metadata"]["name"] == "b-123"
    kept = documents[-1]["spec"]["template"]["spec"]["volumes"][1]
    assert kept["persistentVolumeClaim"]["claimName"] == "123"


def test_docker_ends_as_the_run_does(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\nexit 75\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    assert posttrain("launch", recipe(output_dir="runs/x"), "--on", "docker", "--submit")[0] == 75
