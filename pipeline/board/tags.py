"""The tags that TensorBoard groups by. Others read runs by these names, so they do not change."""

TRAIN_LOSS = "train/loss"  # mean over the last `log.every` steps
TRAIN_ACCURACY = "train/accuracy"  # of the same batches, while they were trained on
LEARNING_RATE = "train/learning_rate"
IMAGES_PER_SECOND = "train/images_per_second"
TEST_LOSS = "test/loss"
TEST_ACCURACY = "test/accuracy"


def class_accuracy(name: str) -> str:
    return f"test_class_accuracy/{name}"


# TensorBoard sorts by tag: these come after what people look at first.
def parameter(name: str) -> str:
    return f"weights/{name.replace('.', '/')}"


def gradient(name: str) -> str:
    return f"weights_gradients/{name.replace('.', '/')}"
