"""What runs in TensorBoard's process: TensorBoard with a projector that sees what is written while it runs.

    python -m pipeline.board.tensorboard_main --logdir RUNS ...

takes TensorBoard's own options. TensorBoard's projector looks for embeddings only when a run appears, so that those of
a job which ends later are not shown before the next start; and it reads the vectors of all runs to name the first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from absl import app
from tensorboard import default, main_lib, program
from tensorboard.plugins.base_plugin import FlagsError
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


def main() -> None:
    main_lib.global_init()
    plugins: list[Any] = [FreshProjector if plugin is ProjectorPlugin else plugin for plugin in default.get_plugins()]
    tensorboard = program.TensorBoard(plugins=plugins)
    try:
        app.run(tensorboard.main, flags_parser=tensorboard.configure)
    except FlagsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
