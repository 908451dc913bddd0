"""The end of a training: a look at the test set, where the best epoch was chosen by other images; and the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.board import tags
from pipeline.errors import CheckpointError
from pipeline.home.paths import RunPaths
from pipeline.stop import Stop
from pipeline.training import checkpoint, older_checkpoints
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate
from pipeline.wording import plural


def judge_best(engine: Engine, run: RunPaths, stop: Stop, *, log: Callable[[str], None]) -> dict[str, float]:
    """Judges the best epoch's weights by the test set, and leaves the engine with them.

    Returns loss and accuracy by their tags; nothing where every epoch was judged by the test set, or there is none, and
    where the best weights have gone, which is told.
    """
    test = engine.dataset.test
    if engine.dataset.val is None or test is None:
        return {}
    try:
        state = checkpoint.load(run.best)
    except CheckpointError as error:
        state, why = None, str(error)
    else:
        why = f"{run.best} has gone"
    if state is None:
        log(f"the best epoch cannot be tested: {why}")
        return {}
    weights = older_checkpoints.up_to_date(engine.model, state["model"])
    if weights is not state["model"]:
        log(f"{run.best}: {older_checkpoints.NOTE}")
    engine.model.load_state_dict(weights)
    found = evaluate(engine, stop, loader=engine.evaluation_loader(test))
    of = f"epoch {engine.best_epoch}, the best by val"
    log(f"test, with the weights of {of}: loss {found.loss:.4f}  accuracy {100 * found.accuracy:.2f} %")
    top5 = {} if found.top5_accuracy is None else {tags.TOP5_ACCURACY: found.top5_accuracy}
    return {tags.TEST_LOSS: found.loss, tags.TEST_ACCURACY: found.accuracy, **top5}


def outcome(engine: Engine, metrics: Mapping[str, float]) -> str:
    """Says what a training has come to."""
    train = engine.spec.train
    trained = f"trained {plural(train.epochs, 'epoch')}"
    if engine.epoch < train.num_epochs:
        trained = f"stopped early after epoch {engine.epoch} of {train.epochs}, {engine.patience.in_words()}"
    if engine.dataset.val is None:
        return f"{trained}; test accuracy {100 * metrics[tags.TEST_ACCURACY]:.2f} %"
    best = f"epoch {engine.best_epoch} was best, with val accuracy {100 * metrics[tags.VAL_BEST]:.2f} %"
    if tags.TEST_ACCURACY not in metrics:
        return f"{trained}; {best}"
    return f"{trained}; test accuracy {100 * metrics[tags.TEST_ACCURACY]:.2f} %: {best}"
