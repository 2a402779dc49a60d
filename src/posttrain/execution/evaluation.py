"""pass@1, pass@k and majority@k over sampled answers, with 95 % intervals over problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from posttrain.data.answers import AnswerText, prompt_text
from posttrain.data.rows import Problem
from posttrain.distributed import ranks
from posttrain.estimator.batch import Request
from posttrain.rewards.grading import Grade, Grader, Verdict, classes, graded
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
from posttrain.telling import tell
from posttrain.train.collect.episodes.episode import Episode
from posttrain.train.collect.episodes.player import Asked, Player

CONFIDENCE = 0.95
RESAMPLES = 2000
FEW = 30  # problems, of which those right or wrong have Wilson's interval
MANY = 0.5  # of the answers, above which it is told that they were cut off


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One graded sample."""

    where: str
    prompt: str
    completion: str
    reference: str
    verdict: Verdict
    value: str | None
    tokens: int
    finish: str
    episode: Mapping[str, Any] | None = None
    """Its turns and how it ended, where an environment answers."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one set: estimates by name, shares of failed grades and of answers cut off, and every answer."""

    estimates: dict[str, Estimate]
    shares: dict[str, float]
    answers: list[list[Answer]]

    def metrics(self, prefix: str) -> dict[str, float]:
        """`<prefix>/pass@1` and so on, with `/low` and `/high` beside each."""
        flat: dict[str, float] = {}
        for name, estimate in self.estimates.items():
            flat[f"{prefix}/{name}"] = estimate.mean
            flat[f"{prefix}/{name}/low"], flat[f"{prefix}/{name}/high"] = estimate.low, estimate.high
        return {**flat, **{f"{prefix}/{name}": share for name, share in self.shares.items()}}

    def rows(self) -> Iterable[dict[str, Any]]:
        """The answers, for a file."""
        for answer in (answer for group in self.answers for answer in group):
            row = asdict(answer)
            episode = row.pop("episode") or {}
            yield {**row, **episode}


def evaluate(
    engine: RolloutEngine,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    sampling: Sampling,
    *,
    samples: int,
    ks: Sequence[int] = (),
    player: Player | None = None,
) -> Evaluation:
    """Samples `samples` answers to every problem and grades them: each rank its share of the problems, and all get the same.

    pass@1 is the mean over samples; pass@k, for each k of `ks` up to `samples`, the unbiased estimate 1 - C(n - c, k) /
    C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1); majority@n grades the most frequent answer, ties shared; equal
    answers vote together, as for the reward majority_vote. An answer that was cut off is none, unless the grader reads such.
    Failed grades are in none of them, and a problem with nothing but failed grades is left out.

    With a `player` these are of episodes, judged by the environment where it says what is right, and else by their last turn.
    """
    mine = ranks.my_share(range(len(problems)))
    if player is None:
        sampled = engine.generate([Request(problems[i].prompt, n=samples, question=i) for i in mine], sampling)
        text = AnswerText(tokenizer)
        share = [_graded(problems[i], group, text, grader) for i, group in zip(mine, sampled, strict=True)]
    else:
        asked = [Asked(i, problems[i].prompt, problems[i].columns, samples) for i in mine]
        played = zip(mine, player.play(asked, sampling), strict=True)
        share = [_judged(problems[i], group, grader) for i, group in played]
    answers = ranks.all_shares(share, "the answers of an evaluation")
    groups = [[Grade(a.verdict, a.value) for a in group if not a.verdict.failed] for group in answers]
    groups = [group for group in groups if group]
    right = [sum(grade.verdict is Verdict.RIGHT for grade in group) for group in groups]
    scores = {"pass@1": [c / len(group) for c, group in zip(right, groups, strict=True)]}
    for k in ks:
        pairs = [(c, len(group)) for c, group in zip(right, groups, strict=True) if len(group) >= k]
        scores[f"pass@{k}"] = [pass_at_k(n, c, k) for c, n in pairs]
    scores[f"majority@{samples}"] = [majority(group) for group in groups]
    scores["length"] = [float(np.mean([a.tokens for a in group])) for group in answers]
    flat = [answer for group in answers for answer in group]
    shares = {
        "failed_grades": sum(a.verdict.failed for a in flat) / len(flat),
        "unparsable": sum(a.verdict is Verdict.UNPARSABLE for a in flat) / len(flat),
        "cut_off": sum(a.finish == "length" for a in flat) / len(flat),
    }
    if shares["cut_off"] > MANY and not grader.reads_cut_off:
        tell(
            "answers-cut-off",
            f"More than half of an evaluation's answers were cut off at max_tokens {sampling.max_tokens}: they have no "
            "answer and count as not right. Raise it, or name what ends an answer in stop.",
        )
    if player is not None:
        every = [answer.episode for answer in flat if answer.episode is not None]
        scores["turns"] = [float(np.mean([len(a.episode["turns"]) for a in group if a.episode])) for group in answers]
        ends = Counter(one["end"] for one in every)
        shares |= {f"end/{end}": count / len(every) for end, count in sorted(ends.items())}
    estimates = {name: estimate(values, shares=name not in ("length", "turns")) for name, values in scores.items() if values}
    return Evaluation(estimates, shares, answers)


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased estimate of solving a problem within k tries, of n tries of which `right` were."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def majority(group: Sequence[Grade]) -> float:
    """1 where the most frequent answer is right; tied answers share it. Unparsable answers have no vote."""
    votes: dict[str, list[bool]] = defaultdict(list)
    for grade in group:
        if grade.value is not None:
            votes[grade.value].append(grade.verdict is Verdict.RIGHT)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    tied = [any(verdicts) for verdicts in votes.values() if len(verdicts) == most]
    return sum(tied) / len(tied)


def estimate(values: Sequence[float], *, shares: bool = True) -> Estimate:
    """Mean with its 95 % percentile bootstrap interval.

    Where all values are equal a bootstrap has no width, and of few that are 0 or 1 it is too narrow. The interval of a share
    is then Wilson's (J. Am. Stat. Assoc. 22, 1927), for 0 right of 48 that from 0 to 0.074; of what is no share, the point.

    Args:
        values: one for each problem.
        shares: they are from 0 to 1.
    """
    mean, n = float(np.mean(values)), len(values)
    constant = len(set(values)) == 1
    if constant and not shares:
        return Estimate(mean, mean, mean)
    if constant or (shares and n < FEW and set(values) <= {0.0, 1.0}):
        return Estimate(mean, *wilson(mean, n))
    rng = np.random.default_rng(0)
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", batch=100, rng=rng
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Of a share of n: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n), with z of 95 %."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def episode_grade(one: Episode, grader: Grader, prompt: str, reference: str) -> Grade:
    """By the environment where it says what is right, and else by the grader, of the last turn."""
    info = one.played[-1].step.info if one.played else {}
    if one.failed:
        return Grade(Verdict.TIMEOUT if one.end == "deadline" else Verdict.CRASH, None)
    if info.get("correct") is not None:
        value = info.get("answer")
        return Grade(Verdict.RIGHT if info["correct"] else Verdict.WRONG, None if value is None else str(value))
    return graded(grader, one.last.text, prompt, reference, finished=one.last.finish == "stop")


def _judged(problem: Problem, episodes: Sequence[Episode], grader: Grader) -> list[Answer]:
    """A problem's episodes."""
    prompt, reference = prompt_text(problem.columns["prompt"]), str(problem.columns.get("answer", ""))
    answers = list[Answer]()
    for one in episodes:
        grade = episode_grade(one, grader, prompt, reference)
        answers.append(
            Answer(
                problem.where,
                prompt,
                one.transcript,
                reference,
                grade.verdict,
                grade.value,
                one.tokens,
                "length" if one.cut_off else "stop",
                one.shown(),
            )
        )
    return answers


def _graded(problem: Problem, completions: Sequence[Completion], text: AnswerText, grader: Grader) -> list[Answer]:
    """A problem's answers. Equal ones have one value, however each is written: its most frequent writing, or the first."""
    prompt, reference = prompt_text(problem.columns["prompt"]), problem.columns["answer"]
    texts = [text.of(problem.prompt, problem.columns, completion.tokens) for completion in completions]
    grades = [
        graded(grader, said, prompt, reference, finished=completion.finish == "stop")
        for said, completion in zip(texts, completions, strict=True)
    ]
    written: dict[str, str] = {}
    for grade, said in zip(grades, texts, strict=True):
        if grade.value is not None:
            written[grade.value] = min(said, written.get(grade.value, said))
    of, votes = classes(grader, written), Counter(grade.value for grade in grades)
    shown = {value: min(same, key=lambda one: (-votes[one], one)) for value, same in of.items()}
    return [
        Answer(
            problem.where,
            prompt,
            said,
            reference,
            grade.verdict,
            None if grade.value is None else shown[grade.value],
            len(completion.tokens),
            completion.finish,
        )
        for grade, said, completion in zip(grades, texts, completions, strict=True)
    ]
