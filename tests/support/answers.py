"""Answers built by hand, or drawn from a known distribution."""

import numpy as np

from modeling.metrics.answers import Answers

LABELS = ("ant", "bee", "cow")


def answers_of(targets, scores, labels=LABELS):
    """Answers whose softmax is `scores`."""
    logits = np.log(np.array(scores, dtype=np.float64)).astype(np.float32)
    names = tuple(f"{index}.png" for index in range(len(targets)))
    return Answers(labels, names, np.array(targets, dtype=np.int64), logits)


def drawn(seed, num_images, *, num_labels=10, temperature=2.0):
    """Answers of a network that is about 97 % right and too sure of itself: its logits are `temperature` times too
    large, while the truth of each image is drawn from the softmax of logits that are not."""
    chance = np.random.default_rng(seed)
    honest = chance.normal(0, 1, (num_images, num_labels))
    honest[np.arange(num_images), chance.integers(0, num_labels, num_images)] += chance.gamma(4, 3, num_images)
    scores_all = np.exp(honest - honest.max(axis=1, keepdims=True))
    scores_all /= scores_all.sum(axis=1, keepdims=True)
    targets = (scores_all.cumsum(axis=1) > chance.random((num_images, 1))).argmax(axis=1)
    names = tuple(map(str, range(num_images)))
    labels = tuple(f"label {index}" for index in range(num_labels))
    return Answers(labels, names, targets, (temperature * honest).astype(np.float32))
