"""What is refused, or accepted by a policy, before an episode is read."""

import shutil

import pytest

from ambient_jax import mixing
from ambient_jax.data import pipeline
from ambient_jax.open_x import source as open_x

ROW = "maniskill_dataset_converted_externally_to_rlds"
LAW = mixing.CoTraining()


def test_versions(write_row, make_common, caplog):
    old = write_row("viola", (5, 4), version="0.0.9")
    sources = {"mine": (old.parent, "viola", {})}
    told = (
        r"^source 'mine': viola: .* has version 0.0.9, the registry describes 0.1.0, .*; to accept"
    )
    with pytest.raises(ValueError, match=rf"{told} it set config.*on_problem.version to 'keep'$"):
        pipeline.open_mixture(make_common(sources, {}), LAW)
    keep = make_common(sources, {"on_problem": {"version": "keep"}})
    mixture = pipeline.open_mixture(keep, LAW)
    assert "kind 'version' in 2 episodes, 0 of them left out" in caplog.text
    assert mixture.statistics["mine"].lengths.tolist() == [5, 4]
    write_row("viola", (6, 7, 4), version="0.1.0")  # of several, the one that the registry means
    assert pipeline.open_mixture(make_common(sources, {}), LAW).statistics[
        "mine"
    ].lengths.tolist() == [*(6, 7, 4)]
    write_row("viola", (6, 7), version="0.2.0", folder="other")
    write_row("viola", (6, 7), version="0.3.0", folder="other")
    with pytest.raises(ValueError, match=r"other holds 2 versions \(0.2.0, 0.3.0\): give the path"):
        pipeline.open_mixture(make_common({"a": (old.parents[1] / "other", "viola", {})}, {}), LAW)


def test_rates(write_row, make_common, caplog):
    """Of stanford_mask_vit nobody knows the control rate."""
    row = "stanford_mask_vit_converted_externally_to_rlds"
    sources = {"mine": (write_row(row, (5, 4)), row, {})}
    form = {"hz": 5.0, "state_width": 15}
    with pytest.raises(
        ValueError, match=r"control rate is unknown: it keeps its own .*\.rate to 'k"
    ):
        pipeline.open_mixture(make_common(sources, form | {"on_problem": {"rate": "raise"}}), LAW)
    mixture = pipeline.open_mixture(make_common(sources, form), LAW)
    assert mixture.statistics["mine"].lengths.tolist() == [5, 4]
    assert "kind 'rate' in 2 episodes" in caplog.text and "episode None" not in caplog.text


SPEC = {
    "hz": 20,
    "action": "xyz action[0:3]; rotvec action[3:6]; grip action[6] | closed -1 open 1",
    "state": "observation/tcp_pose",
    "language": "language_instruction",
    "primary": "observation/image",
}
WRONG = {
    "unknown row": ("violla", {}, "registry has no data set 'violla'; did you mean 'viola'"),
    "action too narrow": (
        *(SPEC, {"action_width": 6}),
        "actions of 7 numbers, config.data.open_x.action_width is 6: raise it",
    ),
    "state too narrow": (
        *(SPEC, {"state_width": 5}),
        "states of 7 numbers, config.data.open_x.state_width is 5: raise it, or set it to 0",
    ),
    "no such field": (
        *(SPEC | {"primary": "observation/imag"}, {"cameras": ("primary",)}),
        "camera needs 'steps/observation/imag'.* did you mean 'steps/observation/image'",
    ),
    "slice beyond": (
        *(SPEC | {"action": "xyz action[5:8]; rpy zeros; grip open"}, {}),
        r"steps/action has 7 numbers a step, \[5:8\] is not in it: correct the spec",
    ),
    "wrong width": (
        *(SPEC | {"action": "xyz action[0:2]; rpy zeros; grip open"}, {}),
        "action part 'xyz' takes 2 numbers of steps/action, expected 3",
    ),
    "unknown key": (SPEC | {"primry": "observation/image"}, {}, "key is 'primry'.*'primary'"),
    "unknown operation": (
        *(SPEC | {"primary": "observation/image | bgrr"}, {}),
        "operation 'bgrr', expected one of bgr, if; did you mean 'bgr'",
    ),
    "unknown policy": (
        *(SPEC, {"on_problem": {"shard": "keep"}}),
        "on_problem.shard is 'keep', expected one of raise, skip",
    ),
    "unknown camera": (
        SPEC,
        {"cameras": ("front",)},
        "cameras is 'front', expected one of prim",
    ),
    "nothing to observe": (
        *(SPEC, {"cameras": (), "state_width": 0, "instruction_bytes": 0}),
        "open_x has no state, cameras or instructions, expected something to observe",
    ),
    "no such file": (SPEC, {"embeddings": "/nowhere/texts.npz"}, "/nowhere/texts.npz"),
}


@pytest.mark.parametrize(("given", "form", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_work(write_row, make_common, given, form, told):
    sources = {"mine": (write_row(ROW, (4,)), given, {})}
    form = {"action_width": 7, "state_width": 8} | form
    with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
        pipeline.open_mixture(make_common(sources, form), LAW)
    assert "\n" not in str(error.value)


def test_a_source_without_a_form_beside_others(write_row, make_common):
    path = write_row(ROW, (4,))
    config = make_common({"mine": (path, ROW, {}), "plain": (path, "", {})}, {})
    with pytest.raises(ValueError, match="source 'plain' has the format 'rlds' and .* differ"):
        pipeline.open_mixture(config, LAW)


def test_a_transform_that_pictures_would_not_follow_is_refused(write_row, make_common):
    config = make_common({"mine": (write_row(ROW, (4,)), ROW, {})}, {})
    with pytest.raises(ValueError, match="source 'mine' has open_x and a transform came"):
        pipeline.open_mixture(config, LAW, transforms={"mine": lambda episode: episode})


def test_the_fingerprint_is_that_of_the_data_wherever_they_lie(write_row, tmp_path):
    path, form = write_row(ROW, (5, 4)), open_x.CommonForm()
    found = {open_x.open_source(path, "train", SPEC, form).fingerprint}
    shutil.move(path, tmp_path / "renamed")
    found.add(open_x.open_source(tmp_path / "renamed", "train", SPEC, form).fingerprint)
    assert len(found) == 1
