"""The tags that TensorBoard groups by. Others read runs by these names, so they do not change.

TensorBoard sorts groups by name and opens the first two: test and train come before classes, images and weights, and
before `train_quantize`, which only quantized networks have.
"""

TRAIN_LOSS = "train/loss"  # mean over the last `log.every` steps
TRAIN_ACCURACY = "train/accuracy"  # of the same batches, while they were trained on
EPOCH_LOSS = "train/epoch_loss"  # mean over the batches of the epoch, while they were trained on
EPOCH_ACCURACY = "train/epoch_accuracy"
LEARNING_RATE = "train/learning_rate"
IMAGES_PER_SECOND = "train/images_per_second"
GRADIENT_NORM = "train/gradient_norm"  # of the step, before it is clipped
DEVICE_MEMORY = "train/device_memory_mib"  # the most so far on a GPU; the process's resident memory on a CPU
TRAINING = (TRAIN_LOSS, TRAIN_ACCURACY, LEARNING_RATE, IMAGES_PER_SECOND, GRADIENT_NORM, DEVICE_MEMORY)
TEST_LOSS = "test/loss"
TEST_ACCURACY = "test/accuracy"
TOP5_ACCURACY = "test/top5_accuracy"  # the true class is among the five likeliest; only of more than ten classes
BEST_ACCURACY = "test/best_accuracy"  # so far; chosen by the test set, where there is no other
VAL_LOSS = "val/loss"  # where there are images to choose the best epoch by; then test/ has one point, at the end
VAL_ACCURACY = "val/accuracy"
VAL_BEST = "val/best_accuracy"
HELD_OUT = {"test": (TEST_LOSS, TEST_ACCURACY, BEST_ACCURACY), "val": (VAL_LOSS, VAL_ACCURACY, VAL_BEST)}
"""Loss, accuracy and best accuracy by the split that every epoch is judged by."""
TOP5 = {"test": TOP5_ACCURACY, "val": "val/top5_accuracy"}

MODEL_BITS = "train_quantize/model_bits"  # of a quantized network; what is counted: `models/quantized_figures.py`
MODEL_BITS_IN_FP32 = "train_quantize/model_bits_in_fp32"  # of the same network, were it not quantized

FIRST_BATCH = "visual/first_batch_as_trained_on"
SAMPLES = "visual/training_set"
PREDICTIONS = "visual/predictions"
CONFUSION = "visual/confusion_matrix"
MISTAKES = "visual/worst_mistakes"

JOB_FILE = "job/file"
CONDITIONS = "job/conditions"
CLASS_REPORT = "job/report"
TOP_OPERATORS = "profile/top_operators"


def class_accuracy(name: str) -> str:
    return f"true_class_accuracy/{name}"  # of the held-out images of a class, those that were recognized


def pr_curve(name: str) -> str:
    return f"pr_curves/{name}"


def parameter(name: str) -> str:
    return f"weights/{name.replace('.', '/')}"


def levels(name: str) -> str:
    """name: of a parameter, after which the tag comes."""
    return f"{parameter(name)}_levels"


def step_size(name: str) -> str:
    """name: of a layer, and `weight` or `activation`, as `features.conv2.weight`."""
    return f"train_quantize/{name.replace('.', '/')}_step"


def gradient(name: str) -> str:
    return f"weights_gradients/{name.replace('.', '/')}"
