"""What a sweep has come to so far: how its trials have ended, which is best, whether there is a point in going on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.home.records import End
from pipeline.queue import sweeps
from pipeline.queue.sweeps import Objectives, Score
from pipeline.wording import plural

MOST_INVALID, MOST_FAILED = 2, 5  # trials that may end so before one has succeeded
MOST_UNSCORED = 2  # trials that may succeed without a figure that counts before one has it


@dataclass
class Standing:
    num_trials: int  # that are asked for
    objectives: Objectives
    ends: dict[int, End | None] = field(default_factory=dict)  # by trial; None where it is not known any more
    known: set[int] = field(default_factory=set)  # of these, what an earlier process has told
    scores: dict[int, Score] = field(default_factory=dict)  # of those that have succeeded

    def keep(
        self, number: int, end: End | None, figures: Mapping[int, Mapping[str, float]], *, by_another: bool
    ) -> Score | None:
        """Counts a trial that has ended. figures: by epoch, if it has succeeded. Returns its score, if it has one."""
        self.ends[number] = end
        if by_another:
            self.known.add(number)
        found = sweeps.score(figures, end.metrics, self.objectives) if end and end.outcome == "succeeded" else None
        if found is not None:
            self.scores[number] = found
        return found

    def hopeless(self) -> str:
        """Returns why there is no point in going on, or "". What an earlier process has given up counts no more."""
        ended = {number: end for number, end in self.ends.items() if end and number not in self.known}
        ends = Counter(end.outcome for end in ended.values())
        if ends["succeeded"] >= MOST_UNSCORED and not self.scores:
            return f"the first {plural(ends['succeeded'], 'trial')} that succeeded have no {self.wanted()}"
        if ends["succeeded"] or ends["pruned"] or ends["cancelled"]:
            return ""
        if ends["invalid"] < MOST_INVALID and ends["failed"] < MOST_FAILED:
            return ""
        bad = {number: end for number, end in ended.items() if end.outcome in ("invalid", "failed")}
        number, last = list(bad.items())[-1]
        return f"the first {plural(len(bad), 'trial')} came to nothing; trial {number}: {last.outcome}: {last.why}"

    def best(self) -> int | None:
        """Returns the number of the best trial by the first objective."""
        choose = max if self.objectives[0][1] else min
        return choose(self.scores, key=lambda number: self.scores[number].values[0], default=None)

    def metrics(self) -> dict[str, float]:
        """Returns the figures of the best trial."""
        best = self.best()
        return {} if best is None else dict(self.scores[best].metrics)

    def in_words(self, score: Score) -> str:
        return sweeps.in_words(score, self.objectives)

    def wanted(self) -> str:
        """The figures that a trial is judged by: a job may lack one, as the top-5 accuracy of ten classes."""
        return " and ".join(tag for tag, _ in self.objectives)

    def summary(self) -> str:
        ends = Counter("lost" if end is None else end.outcome for end in self.ends.values())
        ended = ", ".join(f"{count} {outcome}" for outcome, count in ends.items())
        best = self.best()
        found = "" if best is None else f"; best: trial {best}, {self.in_words(self.scores[best])}"
        if best is None and ends["succeeded"]:
            found = f"; none has {self.wanted()}"
        return f"{len(self.ends)} of {plural(self.num_trials, 'trial')}{f' ({ended})' if ended else ''}{found}"

    def time_left_s(self, running: int) -> float | None:
        """Estimates the time left from how long trials took and how many run now; None before the first has ended."""
        took = [seconds for end in self.ends.values() if end and (seconds := end.took_s) is not None]
        if not took:
            return None
        return sum(took) / len(took) * (self.num_trials - len(self.ends)) / max(1, running)
