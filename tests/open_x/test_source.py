"""Every problem of a data set, on disk: named and counted, then fatal, left out or masked."""

import io
import os
import pathlib
import re
import tracemalloc
import types

import numpy as np
import PIL.Image
import pytest
from array_record.python import array_record_data_source, array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline, records
from ambient_jax.evaluate import evaluation
from ambient_jax.open_x import source as open_x
from ambient_jax.transforms import instructions

FORMATS = ["array_record", "tfrecord"]
ROW = "maniskill_dataset_converted_externally_to_rlds"
LENGTHS = (6, 5, 4, 7, 5, 6)  # of episodes 0 and 1 in the first of three shards, and so on
CAMERAS = ("primary", "wrist")
IMAGES = {"primary": "steps/observation/image", "wrist": "steps/observation/wrist_image"}
TEXT, LONG = "steps/language_instruction", b"push the cup to the very left"
LAW = mixing.CoTraining()
FORM = {"cameras": CAMERAS, "instruction_bytes": 24, "state_width": 8}
STRICT = dict.fromkeys(open_x.POLICIES, "raise")


def examples(shard):
    """The tf.Examples of a file."""
    if "array_record" in shard.name:
        source = array_record_data_source.ArrayRecordDataSource([str(shard)])
        stored = [source[i] for i in range(len(source))]
    else:
        count = len(offsets(shard))
        source = records.TFRecords([str(shard)], [count])
        stored = [source.read(0, i) for i in range(count)]
    return [tf_example_pb2.Example.FromString(record) for record in stored]


def edit(path, change):
    """Rewrites all records of a data set: ``change(number, fields)`` of the tf.Example."""
    number = 0
    for shard in sorted(path.glob("*-train.*")):
        found = examples(shard)
        shard.unlink()
        if "array_record" in shard.name:
            writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        else:
            writer = records.TFRecordWriter(str(shard))
        for example in found:
            change(number, example.features.feature)
            writer.write(example.SerializeToString())
            number += 1
        writer.close()


def offsets(shard):
    with shard.open("rb") as file:
        return records.record_offsets(file, "")


def shard_of(path, number):
    return sorted(path.glob("*-train.*"))[number]


def flip(shard, offset):
    content = bytearray(shard.read_bytes())
    content[offset] ^= 0x55
    shard.write_bytes(bytes(content))


def flip_data(path):
    """A byte of episode 3, which array_record compresses."""
    shard = shard_of(path, 1)
    flip(shard, 40_000 if shard.name.count("tfrecord") else 20_000)


def flip_length(path):
    """TFRecord: the length of episode 2, so that nobody knows where episode 3 begins."""
    flip(shard_of(path, 1), 3)


def cut(path):
    shard = shard_of(path, 1)
    os.truncate(shard, shard.stat().st_size - 100)


def lose(path):
    shard_of(path, 1).unlink()


def without_action(path):
    edit(path, lambda n, fields: fields.pop("steps/action") if n == 3 else None)


def number(field, value, at, *episodes):
    def damage(path):
        def change(n, fields):
            if n in episodes:
                fields[field].float_list.value[at] = value

        edit(path, change)

    return damage


def no_step(path):
    def change(n, fields):
        for name in [name for name in fields if n == 3 and name.startswith("steps/")]:
            getattr(fields[name], fields[name].WhichOneof("kind")).ClearField("value")

    edit(path, change)


def blobs(field, make, steps, *episodes):
    """``make(blob)`` in place of blobs of some steps."""

    def damage(path):
        def change(n, fields):
            values = fields[field].bytes_list.value
            for step in steps if n in episodes else ():
                if step < len(values):
                    values[step] = make(values[step])

        edit(path, change)

    return damage


def shorter(blob):
    return blob[: len(blob) // 2]


def nothing(_):
    return b""


# Kind, damage, the episodes that it hits by file format, and what is told of the first.
SHARD = {
    "a flipped byte": (flip_data, {3}, {3}, r"-00001-of-00003: .*record 1"),
    "a cut file": (cut, {2, 3}, {3}, r"-00001-of-00003: .*record [01]"),
    "a flipped length": (flip_length, None, {2, 3}, r"corrupt length of record 0"),
    "no such field": (without_action, {3}, {3}, r"record 1: has no 'steps/action'"),
}
EPISODE = {
    "nan": (number("steps/action", np.nan, 18, 1), {1}, "steps/action is nan at step 2, number 4"),
    "inf": (
        number("steps/observation/tcp_pose", np.inf, 0, 4, 5),
        {4, 5},
        "steps/observation/tcp_pose is inf at step 0, number 0",
    ),
    "gripper": (
        number("steps/action", 3.0, 13, 0, 1),
        {0, 1},
        r"gripper steps/action is 3 at step 1, which its convention makes 2, expected 0 \(closed\)",
    ),
    "no step": (no_step, {3}, "the episode has 0 steps, too few"),
}
REST = {
    "truncated jpeg": (
        "image",
        blobs(IMAGES["wrist"], shorter, (2, 3), 0, 5),
        {0, 5},
        r"wrist at step 2: .*jpeg",
    ),
    "half of the episodes": (
        "camera",
        blobs(IMAGES["primary"], nothing, range(9), 0, 2, 4),
        {0, 2, 4},
        "primary is absent in 6 of 6 steps",
    ),
    "some steps": (
        "camera",
        blobs(IMAGES["wrist"], nothing, (0, 1), 3),
        {3},
        "wrist is absent in 2 of 7 steps",
    ),
    "no text": ("instruction", blobs(TEXT, nothing, range(9), 1), {1}, "empty in 5 of 5 steps"),
    "blanks": ("instruction", blobs(TEXT, lambda _: b" \t", (0,), 1), {1}, "empty in 1 of 5 steps"),
    "too long": (
        "instruction",
        blobs(TEXT, lambda _: LONG, range(9), 4),
        {4},
        r"b'push the cup to the very left' has 29 bytes, over 24: it is cut",
    ),
}
CASES = [
    *(
        pytest.param("shard", damage, hit, told, file_format, id=f"{name}-{file_format}")
        for name, (damage, array_record, tf_record, told) in SHARD.items()
        for file_format, hit in zip(FORMATS, (array_record, tf_record), strict=True)
        if hit
    ),
    *(
        pytest.param("episode", damage, hit, told, FORMATS[i % 2], id=name)
        for i, (name, (damage, hit, told)) in enumerate(EPISODE.items())
    ),
    *(
        pytest.param(kind, damage, hit, told, FORMATS[i % 2], id=name)
        for i, (name, (kind, damage, hit, told)) in enumerate(REST.items())
    ),
]


@pytest.fixture
def broken(write_row, make_common):
    """``broken(damage, file_format, **on_problem)``: the config of a data set that has it."""

    def make(damage, file_format="array_record", form=(), **on_problem):
        path = write_row(ROW, LENGTHS, file_format=file_format, shards=3, overwrite=True)
        damage(path)
        form = FORM | dict(form) | {"on_problem": STRICT | on_problem}
        return make_common({"mine": (path, ROW, {})}, form)

    return make


def epochs(mixture, count=2, batch_size=4):
    """Ids (episode, step) of each of the first epochs of the stream, and all batches."""
    stream = pipeline.stream_batches(mixture, LAW, schedules.vp(), seed=0, batch_size=batch_size)
    size = int(mixture.chunks.sum())
    batches = [next(stream) for _ in range(-(-count * size // batch_size))]
    stream.close()
    ids = [tuple(i) for b in batches for i in b["id"][:, 1:].tolist()]
    return [sorted(ids[i * size : (i + 1) * size]) for i in range(count)], batches


def steps_of(episodes):
    return [(e, t) for e in sorted(episodes) for t in range(LENGTHS[e])]


@pytest.mark.parametrize(("kind", "damage", "hit", "told", "file_format"), CASES)
def test_fatal(broken, kind, damage, hit, told, file_format):
    # Lenient about all else: no other policy may swallow the error.
    lenient = {k: policies[-1] for k, policies in open_x.POLICIES.items() if k != kind}
    with pytest.raises(ValueError, match=told) as error:
        pipeline.open_mixture(broken(damage, file_format, **lenient), LAW)
    text = str(error.value)
    assert text.startswith(f"source 'mine': {ROW}, episode {min(hit)}: ")
    assert text.count("on_problem") == 1 and "\n" not in text
    others = " or ".join(repr(p) for p in open_x.POLICIES[kind][1:])
    assert text.endswith(f"; mend it, or set config.data.open_x.on_problem.{kind} to {others}")


@pytest.mark.parametrize(("kind", "damage", "hit", "told", "file_format"), CASES)
def test_left_out(broken, kind, damage, hit, told, file_format, caplog):
    config = broken(damage, file_format, **{kind: "skip"})
    mixture = pipeline.open_mixture(config, LAW)
    found = mixture.statistics["mine"]
    assert found.lengths.tolist() == [0 if e in hit else n for e, n in enumerate(LENGTHS)]
    problem = found.problems.pop(kind)
    assert found.problems == {}, "of no other kind"
    assert (problem["episodes"], problem["skipped"]) == (len(hit), len(hit))
    assert [i for i, _ in problem["examples"]] == sorted(hit)
    assert caplog.text.count("source 'mine' has problems") == 1
    assert f"kind '{kind}' in {len(hit)} episodes, {len(hit)} of them left out (epi" in caplog.text
    for epoch in epochs(mixture)[0]:
        assert epoch == steps_of(set(range(6)) - hit)


def test_what_a_flipped_length_leaves_out_is_all_that_follows(broken):
    """The records behind it cannot be found, those before it and in other shards are read."""
    found = pipeline.open_mixture(broken(flip_length, "tfrecord", shard="skip"), LAW)
    assert found.statistics["mine"].lengths.tolist() == [6, 5, 0, 0, 5, 6]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_missing_shard(broken, file_format, caplog):
    with pytest.raises(FileNotFoundError, match=r"source 'mine': shard .*-00001-of-00003 is mis"):
        pipeline.open_mixture(broken(lose, file_format), LAW)
    with pytest.raises(FileNotFoundError, match=r"or set config.*on_problem.shard to 'skip'$"):
        pipeline.open_mixture(broken(lose, file_format), LAW)
    mixture = pipeline.open_mixture(broken(lose, file_format, shard="skip"), LAW)
    found = mixture.statistics["mine"]
    assert found.lengths.tolist() == [6, 5, 0, 0, 5, 6]
    assert (found.problems["shard"]["episodes"], found.problems["shard"]["skipped"]) == (2, 2)
    assert "-00001-of-00003" in caplog.text
    assert epochs(mixture)[0] == [steps_of({0, 1, 4, 5})] * 2


def by_hand(mixture):
    """Images by camera, episode and step, None where there is none or it cannot be decoded."""
    found, shards = {}, [pathlib.Path(f) for f in mixture.datasets["mine"].data.shard_files]
    for n, example in enumerate(e for shard in shards for e in examples(shard)):
        for camera, field in IMAGES.items():
            for t, blob in enumerate(example.features.feature[field].bytes_list.value):
                try:
                    found[camera, n, t] = np.asarray(PIL.Image.open(io.BytesIO(blob)))
                except OSError:
                    found[camera, n, t] = None
    return found


def damaged_inside(blob):
    """A jpeg whose markers are all there and whose tables are not."""
    at = blob.index(b"\xff\xc4")  # Huffman tables: 255 codes of one bit cannot be
    return blob[: at + 5] + b"\xff" * 16 + blob[at + 21 :]


MASKED = {
    "truncated": ("image", blobs(IMAGES["wrist"], shorter, (2, 3), 0, 5)),
    "damaged inside": ("image", blobs(IMAGES["primary"], damaged_inside, (1,), 2)),
    "half of the episodes": ("camera", blobs(IMAGES["primary"], nothing, range(9), 0, 2, 4)),
    "some steps": ("camera", blobs(IMAGES["wrist"], nothing, (0, 1), 3)),
}


@pytest.mark.parametrize(("kind", "damage"), MASKED.values(), ids=MASKED)
def test_kept_and_masked(broken, kind, damage):
    """Exactly the images that are not there, or not whole, are zeros and masked."""
    mixture = pipeline.open_mixture(broken(damage, **{kind: "keep"}), LAW)
    assert mixture.statistics["mine"].lengths.tolist() == list(LENGTHS)
    images = by_hand(mixture)
    ids, batches = epochs(mixture, count=1)
    assert ids == [steps_of(range(6))]
    missing = 0
    for batch in batches:
        for row, (_, episode, step) in enumerate(batch["id"].tolist()):
            for camera in CAMERAS:
                for t, at in enumerate((max(step - 1, 0), step)):
                    expected = images[camera, episode, at]
                    there = batch["observation"][f"image_{camera}_mask"][row, t]
                    assert there == (expected is not None), (camera, episode, at)
                    expected = np.zeros((8, 8, 3)) if expected is None else expected
                    image = batch["observation"][f"image_{camera}"][row, t].astype(int)
                    np.testing.assert_allclose(image, expected, atol=2)
                    missing += not there
    assert missing >= 2, "the test must have something to see"


@pytest.mark.parametrize("policy", ["raise", "skip", "keep"])
def test_a_jpeg_damaged_inside_is_found_when_it_is_decoded(broken, policy, caplog):
    """Its markers are all there; only "skip", which cannot leave it out later, decodes before."""
    damage = blobs(IMAGES["primary"], damaged_inside, (1,), 2)
    mixture = pipeline.open_mixture(broken(damage, image=policy), LAW)
    if policy == "skip":
        assert mixture.statistics["mine"].problems["image"]["skipped"] == 1
        assert epochs(mixture, count=1)[0] == [steps_of({0, 1, 3, 4, 5})]
        return
    assert mixture.statistics["mine"].problems == {}
    told = r"source 'mine', episode 2, step 1: image of the primary camera cannot be decoded \(.*\)"
    if policy == "raise":
        with pytest.raises(ValueError, match=rf"^{told}; mend the .*on_problem.image to 'keep'"):
            epochs(mixture, count=1)
        return
    epochs(mixture, count=1)
    assert re.search(f"{told}: it is masked", caplog.text)


@pytest.mark.parametrize(
    ("make", "expected", "episodes"),
    [
        (nothing, b"", {1, 4}),
        (lambda _: b" \t\n", b"", {1, 4}),
        (lambda _: LONG, LONG[:24], {1, 4}),
        (lambda _: "stoß die Tasse nach liß!".encode(), "stoß die Tasse nach".encode(), {0}),
        (lambda _: "Tassenschrankschlüsselü".encode(), "Tassenschrankschlüssel".encode(), {0}),
    ],
    ids=["none", "blanks", "long", "cut between words", "cut between characters"],
)
def test_instructions_kept(broken, make, expected, episodes):
    config = broken(blobs(TEXT, make, range(9), *episodes), instruction="keep")
    mixture = pipeline.open_mixture(config, LAW)
    assert mixture.statistics["mine"].problems["instruction"]["episodes"] == len(episodes)
    ids, batches = epochs(mixture, count=1)
    assert ids == [steps_of(range(6))]
    for batch in batches:
        for (_, episode, _), row in zip(
            batch["id"].tolist(), batch["observation"]["instruction"], strict=True
        ):
            if episode in episodes:
                assert row.tobytes() == expected.ljust(24, b"\0")
            assert instructions.is_empty(row) == (episode in episodes and not expected)


def flipped(blob):
    """A png's byte in the middle of its pixels."""
    blob = blob if blob.startswith(b"\x89PNG") else as_png(blob)
    return blob[: len(blob) // 2] + bytes([blob[len(blob) // 2] ^ 255]) + blob[len(blob) // 2 + 1 :]


def as_png(blob):
    out = io.BytesIO()
    PIL.Image.open(io.BytesIO(blob)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def deep(_):
    out = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(out, "PNG")
    return out.getvalue()


def as_cmyk(blob):
    out = io.BytesIO()
    PIL.Image.open(io.BytesIO(blob)).convert("CMYK").save(out, "JPEG")
    return out.getvalue()


def seen(mixture):
    """What `evaluation.recorded` needs of a policy."""
    return types.SimpleNamespace(chain=mixture.chain, history=2, horizon=3)


@pytest.mark.parametrize("policy", ["raise", "skip", "keep"])
@pytest.mark.parametrize(
    "make, told",
    [
        (flipped, "a checksum is wrong"),
        (deep, "16 bits"),
        (as_cmyk, "CMYK"),
    ],
    ids=["flipped", "16 bits", "cmyk"],
)
def test_one_verdict_before_training_in_it_and_in_evaluation(broken, make, told, policy, caplog):
    config = broken(blobs(IMAGES["primary"], make, (1,), 2), image=policy)
    mixture = pipeline.open_mixture(config, LAW)
    problem = mixture.statistics["mine"].problems["image"]
    assert problem["episodes"] == 1 and told in problem["examples"][0][1]
    dataset = mixture.datasets["mine"]
    if policy == "raise":
        line = rf"episode 2: primary at step 1: .*{told}.*on_problem.image to 'skip' or 'keep'"
        with pytest.raises(ValueError, match=line):
            epochs(mixture, count=1)
        with pytest.raises(ValueError, match=line):
            evaluation.recorded(dataset, seen(mixture))
        return
    ids, batches = epochs(mixture, count=1)
    chunks = evaluation.recorded(dataset, seen(mixture))
    left = set(range(6)) - ({2} if policy == "skip" else set())
    assert ids == [steps_of(left)]
    assert sorted(map(tuple, chunks.origin.tolist())) == steps_of(left)
    there = chunks.observation["image_primary_mask"]
    # In keep, the image of step 1 is the newest of chunk 1 and the one before of chunk 2.
    rows = zip(chunks.origin.tolist(), there.tolist(), strict=True)
    lost = [(*origin, t) for origin, row in rows for t in (0, 1) if not row[t]]
    assert sorted(lost) == ([] if policy == "skip" else [(2, 1, 1), (2, 2, 0)])
    assert not chunks.observation["image_primary"][~there].any()
    assert sum((~b["observation"]["image_primary_mask"]).sum() for b in batches) == len(lost)


def test_evaluation_leaves_out_what_training_does(broken):
    for damage, hit, policies in (
        (EPISODE["gripper"][0], {0, 1}, {"episode": "skip"}),
        (flip_data, {3}, {"shard": "skip"}),
        (REST["no text"][1], {1}, {"instruction": "skip"}),
        (REST["some steps"][1], {3}, {"camera": "skip"}),
    ):
        mixture = pipeline.open_mixture(broken(damage, **policies), LAW)
        chunks = evaluation.recorded(mixture.datasets["mine"], seen(mixture))
        assert sorted(map(tuple, chunks.origin.tolist())) == steps_of(set(range(6)) - hit)
    mixture = pipeline.open_mixture(
        broken(blobs(TEXT, nothing, range(9), 1), instruction="skip"), LAW
    )
    with pytest.raises(ValueError, match="1 of 1 episodes are left out, the first by on_pr"):
        evaluation.recorded(_Only(mixture.datasets["mine"], 1), seen(mixture))


class _Only(open_x.OpenXSource):
    """One episode of a data set."""

    def __init__(self, whole, position):
        self.__dict__ |= vars(whole)
        self._position = position

    def __len__(self):
        return 1

    def examined(self, position):
        return super().examined(self._position)


def test_a_camera_that_a_flag_says_is_not_there(write_row, make_common, caplog):
    """bridge_orig says by flags of the episode which cameras it has; what is stored instead is no
    image of that camera, whatever it looks like."""

    def change(number, episode):
        episode["episode_metadata/has_image_1"] = number % 2 == 1

    path = write_row("bridge_orig", (6, 5, 7, 6), change=change)
    sources = {"mine": (path, "bridge_orig", {})}
    form = {"cameras": ("primary", "secondary")}
    with pytest.raises(ValueError, match=r"episode 0: secondary is absent in 4 of 4 steps; mend"):
        pipeline.open_mixture(make_common(sources, form | {"on_problem": {"camera": "raise"}}), LAW)
    found = pipeline.open_mixture(
        make_common(sources, form | {"on_problem": {"camera": "skip"}}), LAW
    )
    # Its first step is dropped, and the last one that only says where the motion ended.
    assert found.statistics["mine"].lengths.tolist() == [0, 3, 0, 4]
    mixture = pipeline.open_mixture(make_common(sources, form), LAW)
    assert mixture.statistics["mine"].lengths.tolist() == [4, 3, 5, 4]
    assert mixture.statistics["mine"].problems["camera"]["episodes"] == 2
    for batch in epochs(mixture, count=1)[1]:
        odd = batch["id"][:, 1] % 2 == 1
        observation = batch["observation"]
        assert np.array_equal(observation["image_secondary_mask"], np.stack([odd, odd], 1))
        assert observation["image_primary_mask"].all()
        assert (observation["image_secondary"] > 0).any((1, 2, 3, 4)).tolist() == odd.tolist()


def test_episodes_are_counted_once_each(broken):
    """Two images of two cameras and two texts, one of them too long: one episode of each kind."""

    def damage(path):
        for field in IMAGES.values():
            blobs(field, shorter, (1, 3), 2)(path)
        blobs(TEXT, nothing, (0,), 2)(path)
        blobs(TEXT, lambda _: LONG, (1, 2), 2)(path)

    found = pipeline.open_mixture(broken(damage, image="skip", instruction="keep"), LAW)
    problems = found.statistics["mine"].problems
    for kind in ("image", "instruction"):
        assert (problems[kind]["episodes"], problems[kind]["skipped"]) == (1, 1)
        assert len(problems[kind]["examples"]) == 2


def test_cached_statistics_keep_the_problems_and_read_nothing(broken, monkeypatch, caplog):
    config = broken(EPISODE["nan"][0], episode="skip")
    first = pipeline.open_mixture(config, LAW).statistics["mine"]
    told = [r.getMessage() for r in caplog.records if "has problems" in r.getMessage()]
    caplog.clear()

    def read(*_):
        raise ValueError("the episodes are read")

    monkeypatch.setattr(open_x.OpenXSource, "examine", read)
    again = pipeline.open_mixture(config, LAW).statistics["mine"]
    assert again.problems == first.problems and again.lengths.tolist() == first.lengths.tolist()
    assert [r.getMessage() for r in caplog.records if "has problems" in r.getMessage()] == told
    assert len(told) == 1
    # Another policy or list of cameras reads again.
    for name, value in {
        "cameras": ("primary",),
        "instruction_bytes": 30,
        "state_width": 9,
        "quality": ("success",),
        "on_problem": STRICT | {"episode": "skip", "image": "keep"},
    }.items():
        other = config.copy_and_resolve_references()
        other.open_x[name] = value
        with pytest.raises(ValueError, match="the episodes are read"):
            pipeline.open_mixture(other, LAW)
    # How images are decoded is no matter of statistics.
    config.open_x.workers, config.open_x.image_size = 1, (16, 16)
    assert pipeline.open_mixture(config, LAW).statistics["mine"].problems == first.problems


def test_an_edited_list_of_embeddings_reads_again(broken, tmp_path):
    file = tmp_path / "texts.npz"
    texts = ("pick up the block", "open the drawer", "push the cup to the left")
    embedding = np.eye(3, 5, dtype=np.float32)

    def save(n):
        table = instructions.InstructionTable(texts[:n], embedding[:n])
        instructions.save_instructions(file, table)

    save(3)
    config = broken(lambda _: None, form={"embeddings": str(file), "instruction_bytes": 0})
    mixture = pipeline.open_mixture(config, LAW)
    assert mixture.observation_shapes["instruction"].shape == (5,)
    stored = {n: mixture.datasets["mine"][n]["steps"]["instruction"][0] for n in range(6)}
    for batch in epochs(mixture, count=1)[1]:
        for (_, episode, _), row in zip(
            batch["id"].tolist(), batch["observation"]["instruction"], strict=True
        ):
            np.testing.assert_array_equal(row, embedding[texts.index(stored[episode].decode())])
    mark = mixture.format.marks["data.open_x.embeddings"]
    assert pipeline.open_mixture(config, LAW).format.marks["data.open_x.embeddings"] == mark
    embedding[2, 4] = 0.5  # what a resumed run is held to
    save(3)
    assert pipeline.open_mixture(config, LAW).format.marks["data.open_x.embeddings"] != mark
    save(1)
    lacks = min(n for n, text in stored.items() if text.decode() != texts[0])
    with pytest.raises(ValueError, match=rf"^source 'mine': {ROW}, episode {lacks}: .* not among"):
        pipeline.open_mixture(config, LAW)
    config.open_x.on_problem.instruction = "skip"
    mixture = pipeline.open_mixture(config, LAW)
    kept = {n for n, text in stored.items() if text.decode() == texts[0]}
    assert 0 < len(kept) < 6 and epochs(mixture, count=1)[0] == [steps_of(kept)]


def test_data_in_device_memory_leave_out_the_same(broken):
    for damage, hit in ((EPISODE["nan"][0], {1}), (flip_length, {2, 3}), (no_step, {3})):
        config = broken(damage, "tfrecord", episode="skip", shard="skip")
        config.placement = "device"
        with pytest.raises(ValueError, match="placement is 'device' and .* has cameras or ins"):
            pipeline.open_mixture(config, LAW)
        config.open_x.cameras, config.open_x.instruction_bytes = (), 0
        data = device.load_device_data(pipeline.open_mixture(config, LAW))
        found = np.stack([data.episode, np.arange(len(data.start)) - data.start], 1)
        assert list(map(tuple, found.tolist())) == steps_of(set(range(6)) - hit)


def test_nothing_left(broken):
    everything = number("steps/action", np.nan, 3, *range(6))
    with pytest.raises(ValueError, match=r"source 'mine' .* no step in its episodes, after 6 left"):
        pipeline.open_mixture(broken(everything, episode="skip"), LAW)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_shard_left_open_holds_none_of_its_episodes(write_row, file_format):
    """A loader leaves many of them open, between one window and the next."""

    def padded(_, episode):
        observation = episode["steps"]["observation"]
        observation["image"] = [image + bytes(2**20) for image in observation["image"]]

    path = write_row(ROW, (5, 5, 5), change=padded, shards=1, file_format=file_format)
    form = open_x.CommonForm(cameras=CAMERAS)
    episodes = open_x.open_source(path, "train", ROW, form).stream(0)
    next(episodes)
    tracemalloc.start()
    next(episodes)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**20 and peak > 5 * 2**20
