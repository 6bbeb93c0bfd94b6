import numpy as np
import pytest

from ambient_jax.annotate import labels

RULE = dict(threshold=0.5, at_least=0.0, below=0.6, unlabelled=0.2)


def test_labels_set_sigma_min():
    found = labels.sigma_min([1.0, 0.5, 0.4, 0.0, np.nan], **RULE)
    np.testing.assert_array_equal(found, [0.0, 0.0, 0.6, 0.6, 0.2])


def test_bad_rules_are_named():
    with pytest.raises(ValueError, match="below.*1.5|1.5.*below"):
        labels.sigma_min([1.0], **RULE | {"below": 1.5})
    with pytest.raises(ValueError, match="threshold is nan"):
        labels.sigma_min([1.0], **RULE | {"threshold": np.nan})
    with pytest.raises(ValueError, match=r"shape \(1, 1\)"):
        labels.sigma_min([[1.0]], **RULE)
