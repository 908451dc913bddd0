"""What runs in TensorBoard's process: TensorBoard with two plugins that are a little better than its own.

    python -m pipeline.board.tensorboard_main --logdir RUNS ...

takes TensorBoard's own options. TensorBoard's projector looks for embeddings only when a run appears, so that those of
a job which ends later are not shown before the next start; and it reads the vectors of all runs to name the first.
Its PR curves dashboard takes the thresholds of every curve for evenly spaced ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from absl import app
from tensorboard import default, main_lib, program
from tensorboard.plugins.base_plugin import FlagsError
from tensorboard.plugins.pr_curve import metadata
from tensorboard.plugins.pr_curve.pr_curves_plugin import PrCurvesPlugin
from tensorboard.plugins.projector.metadata import PROJECTOR_FILENAME
from tensorboard.plugins.projector.projector_plugin import LRUCache, ProjectorPlugin


class FreshProjector(ProjectorPlugin):  # type: ignore[misc] # it has no types
    """The projector, which looks for embeddings again whenever one is asked for."""

    _seen: dict[str, int] | None = None  # when each run's config was written

    def _update_configs(self) -> None:
        found = {str(path): path.stat().st_mtime_ns for path in Path(self.logdir).glob(f"*/{PROJECTOR_FILENAME}")}
        if found != self._seen:
            self._seen, self._run_paths = found, None  # as if it had just been started
            self.tensor_cache = LRUCache(1)
        super()._update_configs()

    def _augment_configs_with_checkpoint_info(self) -> None:
        """It reads all vectors to learn their shape, which our configs say."""
        if not all(entry.tensor_shape for config in self._configs.values() for entry in config.embeddings):
            super()._augment_configs_with_checkpoint_info()


class TrueThresholds(PrCurvesPlugin):  # type: ignore[misc] # it has no types
    """The PR curves, with the thresholds that `curves.py` writes in a row behind TensorBoard's own."""

    def _make_pr_entry(self, step: int, wall_time: float, data_array: Any) -> dict[str, Any]:
        entry: dict[str, Any] = super()._make_pr_entry(step, wall_time, data_array)
        for thresholds in data_array[metadata.RECALL_INDEX + 1 :]:
            entry["thresholds"] = thresholds[: len(entry["thresholds"])].tolist()
        return entry


OURS: dict[type, type] = {ProjectorPlugin: FreshProjector, PrCurvesPlugin: TrueThresholds}


def main() -> None:
    main_lib.global_init()
    plugins: list[Any] = [OURS.get(plugin, plugin) for plugin in default.get_plugins()]
    tensorboard = program.TensorBoard(plugins=plugins)
    try:
        app.run(tensorboard.main, flags_parser=tensorboard.configure)
    except FlagsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
