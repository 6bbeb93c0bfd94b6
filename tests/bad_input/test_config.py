"""Configs that no run can mean: refused by the check, which reads no data (there are none here)."""

import math

import ml_collections

from ambient_jax.train import config as config_lib


def with_(*changes, **more):
    """The check of a config with fields set, ``(dotted name, value)`` each, whatever their type."""

    def act(bench):
        config = config_lib.default()
        config.data.sources.a = config_lib.source("/there/is/nothing", "clean")
        config.data.sources.b = config_lib.source("/nothing/either", "corrupt", sigma_min=0.2)
        for path, value in (*changes, *more.items()):
            section = config
            *parents, name = path.split(".")
            for parent in parents:
                section = section[parent]
            with config.unlocked(), section.unlocked(), section.ignore_type():
                section[name] = value
        config_lib.check(config)

    return act


def section(**fields):
    return ml_collections.ConfigDict(fields)


def source(**fields):
    return config_lib.source("/nothing/either", "corrupt", **fields)


NAN, INF = math.nan, math.inf
# What is set, to what, and what the line has to say.
FIELDS = [
    ("name", "", r"config.name is ''.*plain name of a folder"),
    ("name", "../x", r"config.name is '../x'.*without /"),
    ("name", "a/b", r"config.name is 'a/b'"),
    ("name", "..", r"config.name is '\.\.'"),
    ("name", "a\nb", r"config.name is 'a\\nb'"),
    ("name", 3, r"config.name is 3 \(int\), expected str"),
    ("seed", -1, r"config.seed is -1, expected at least 0"),
    ("seed", 2**32, r"config.seed is 4294967296, expected at most 4294967295"),
    ("seed", True, r"config.seed is True \(bool\), expected int"),
    ("seed", 1.5, r"config.seed is 1.5 \(float\), expected int"),
    ("train.learning_rate", NAN, r"train.learning_rate is nan"),
    ("train.learning_rate", INF, r"train.learning_rate is inf, expected in \(0, 1\)"),
    ("train.learning_rate", 0, r"train.learning_rate is 0"),
    ("train.warmup", -5, r"warmup is -5"),
    ("train.warmup", 20_000, r"warmup is 20000 and config.train.steps 20000"),
    ("train.b1", 1.0, r"config.train.b1 is 1.0, expected in \[0, 1\)"),
    ("train.b1", -0.1, r"config.train.b1 is -0.1"),
    ("train.b2", 1.5, r"config.train.b2 is 1.5, expected in \[0, 1\)"),
    ("train.b2", NAN, r"config.train.b2 is nan"),
    ("train.clip_norm", 0.0, r"clip_norm is 0.0, expected above 0"),
    ("train.clip_norm", -1.0, r"clip_norm is -1.0"),
    ("train.weight_decay", -1e-6, r"weight_decay is -1e-06, expected at least 0"),
    ("train.weight_decay", INF, r"weight_decay is inf, expected at least 0 and finite"),
    ("train.ema", NAN, r"train.ema is nan"),
    ("train.ema", -0.5, r"train.ema is -0.5, expected in \[0, 1\)"),
    ("train.batch_size", True, r"batch_size is True \(bool\), expected int"),
    ("train.batch_size", 128.0, r"batch_size is 128.0 \(float\), expected int"),
    ("train.batch_size", 2**40, r"batch_size is 1099511627776, expected at most"),
    ("train.steps", 2**31, r"train.steps is 2147483648, expected at most 2147483647"),
    ("train.accumulation", 3, r"accumulation is 3, expected a divisor of batch_size, 128"),
    ("train.keep_every", True, r"keep_every is True \(bool\), expected int"),
    ("train.log_every", None, r"log_every is None \(NoneType\), expected int"),
    ("train.init_from", 3, r"init_from is 3 \(int\), expected str"),
    ("objective.loss", "denoisig", r"objective.loss is 'denoisig'.*did you mean 'denoising'"),
    ("objective.prediction", "epsilon", r"objective.prediction is 'epsilon'.*mean 'eps'"),
    ("objective.prediction", "score", r"objective.prediction is 'score'"),
    ("objective.weighting", "bufered", r"objective.weighting is 'bufered'.*mean 'buffered'"),
    ("objective.buffer", 1.0, r"objective.buffer is 1.0, expected S > 1"),
    ("objective.buffer", NAN, r"objective.buffer is nan"),
    ("policy.solver", "dimm", r"policy.solver is 'dimm'.*did you mean 'ddim'"),
    ("policy.steps", 0, r"policy.steps is 0, expected at least 1"),
    ("policy.clip", -1.0, r"policy.clip is -1.0, expected a bound > 0"),
    ("policy.clip", NAN, r"policy.clip is nan, expected a number"),
    ("policy.execute", 0, r"policy.execute is 0, expected at least 1"),
    ("augmentation.brightness", -0.1, r"augmentation.*brightness is -0.1, expected 0 to 1"),
    ("augmentation.contrast", NAN, r"augmentation.contrast is nan"),
    ("augmentation.hue", 0.7, r"augmentation.*hue is 0.7, expected 0 to 0.5"),
    ("augmentation.resized_crop", 0.0, r"resized_crop is 0.0, expected a share"),
    ("augmentation.crop", (80,), r"crop is \(80,\), expected \(height, width\)"),
    ("augmentation.crop", (80, 0), r"a side of Augmentation crop is 0, expected at least 1"),
    ("augmentation.crop", 80, r"augmentation.crop is 80 \(int\), expected tuple"),
    ("data.observation", "state", r"data.observation is 'state'.*one name is \('state',\)"),
    ("data.observation", ("state", "state"), r"data.observation has 'state' more than once"),
    ("data.observation", ("state", 3), r"data.observation has the entry 3"),
    ("data.action", ("action",), r"data.action is \('action',\) \(tuple\), expected str"),
    ("data.action", "", r"data.action is '', expected a name"),
    ("data.history", 10**6, r"data.history is 1000000, expected at most 10000"),
    ("data.horizon", 10**9, r"data.horizon is 1000000000, expected at most 10000"),
    ("data.horizon", True, r"data.horizon is True \(bool\)"),
    ("data.normalization", "gausian", r"normalization is 'gausian'.*did you mean 'gaussian'"),
    ("data.normalize_per", "sources", r"normalize_per is 'sources'.*did you mean 'source'"),
    ("data.padding", "repeat", r"data.padding is 'repeat', expected one of mask, hold"),
    ("data.shards", 0, r"data.shards is 0, expected at least 1"),
    ("data.shards", 1.5, r"data.shards is 1.5 \(float\), expected int"),
    ("data.prefetch", -1, r"data.prefetch is -1, expected at least 0"),
    ("data.prefetch", 10**6, r"data.prefetch is 1000000, expected at most"),
    ("data.assemblers", 0, r"data.assemblers is 0, expected at least 1"),
    ("data.shuffle_window", 0, r"data.shuffle_window is 0, expected at least 1"),
    ("data.shuffle_memory", 0.0, r"data.shuffle_memory is 0.0, expected above 0"),
    ("data.shuffle_memory", INF, r"data.shuffle_memory is inf, expected above 0 and finite"),
    ("data.open_x.hz", 0.0, r"open_x.hz is 0.0, expected in \(0, 10000\]"),
    ("data.open_x.hz", NAN, r"open_x.hz is nan"),
    ("data.open_x.rotation", "euler", r"open_x.rotation is 'euler', expected one of rpy"),
    ("data.open_x.cameras", ("primry",), r"cameras is 'primry'.*did you mean 'primary'"),
    ("data.open_x.cameras", ("wrist", "wrist"), r"cameras has 'wrist' more than once"),
    ("data.open_x.cameras", "wrist", r"cameras is 'wrist'.*one name is \('wrist',\)"),
    ("data.open_x.image_size", (224,), r"image_size is \(224,\), expected \(height, width\)"),
    ("data.open_x.image_size", (224, 0.5), r"image_size is 0.5, expected a whole number"),
    ("data.open_x.image_size", (10**6, 8), r"image_size is 1000000, expected at most"),
    ("data.open_x.instruction_bytes", -1, r"instruction_bytes is -1, expected at least 0"),
    ("data.open_x.action_width", 0, r"action_width is 0, expected at least 1"),
    ("data.open_x.state_width", 10**6, r"state_width is 1000000, expected at most 10000"),
    ("data.open_x.quality", ("success", ""), r"quality has the entry ''"),
    ("data.open_x.workers", -2, r"workers is -2, expected at least 0"),
    ("data.open_x.workers", 10**5, r"workers is 100000, expected at most 1024"),
    ("data.open_x.on_problem.image", "ignore", r"on_problem.image is 'ignore', expected one of"),
    ("data.open_x.on_problem.shard", "keep", r"on_problem.shard is 'keep', expected one of"),
    ("data.open_x.on_problem.imge", "skip", r"on_problem.imge .*did you mean 'image'"),
    ("data.sources.b.sigma_min", NAN, r"sources.b.sigma_min is nan, expected a number"),
    ("data.sources", section(b=source(sigma_min=True)), r"sources.b.sigma_min is True, expected a"),
    (
        "data.sources",
        section(b=source(weight=True)),
        r"sources.b.weight is True, expected a number",
    ),
    ("data.sources.b.sigma_max", "0.1", r"sources.b.sigma_max is '0.1', expected a number"),
    ("data.sources.b.weight", -1.0, r"sources.b.weight is -1.0, expected at least 0 and finite"),
    ("data.sources.b.weight", NAN, r"sources.b.weight is nan"),
    ("data.sources.b.role", "courrpt", r"sources.b.role is 'courrpt'.*mean 'corrupt'"),
    ("data.sources.b.path", 3, r"sources.b.path is 3, expected str"),
    ("data.sources.b.pathh", "x", r"sources.b is 'pathh'.*did you mean 'path'"),
    ("law.name", "ambiant", r"config.law: law is 'ambiant'.*did you mean 'ambient'"),
    ("law.name", 3, r"config.law.name is 3, expected a name"),
    ("law.alpha", NAN, r"config.law.alpha is nan, expected a number"),
    ("law.alpha", True, r"config.law.alpha is True, expected a number"),
    ("law.alpha", 1.5, r"config.law: alpha is 1.5"),
    ("law.alhpa", 0.5, r"config.law: .*'alhpa'.*did you mean 'alpha'"),
    (
        "law",
        section(name="soft", alphas=(1.0, "x")),
        r"config.law.alphas is 'x', expected a number",
    ),
    ("law", section(name="ben_david"), r"config.law: law 'ben_david'.*missing"),
    ("schedule.name", "cosin", r"config.schedule: schedule is 'cosin'.*did you mean 'cosine'"),
    ("schedule", section(name="edm", p_std=0.0), r"config.schedule: edm has .*p_std 0.0"),
    ("schedule", section(name="edm", p_mean=NAN), r"config.schedule.p_mean is nan"),
    (
        "schedule",
        section(name="vp", offset=0.1),
        r"config.schedule: option of schedule 'vp' is 'offset'",
    ),
    ("model.name", "unett", r"config.model: .*'unett'.*did you mean 'unet'"),
    ("model.features", 64, r"config.model: .*features is 64; expected a list of widths"),
    ("model.features", (64, True), r"config.model: .*features is True; expected an integer"),
    ("model.features", (60,), r"config.model: .*60 is not a multiple of groups"),
    ("model.blocks", 0, r"config.model: .*blocks is 0; expected an integer >= 1"),
    ("model.fetures", (64,), r"config.model: .*'fetures'.*did you mean 'features'"),
    ("model.dtype", "float16", r"config.model: dtype of model 'unet' is 'float16'"),
    ("model.encoder", "multimodal", r"config.model: .*encoder is 'multimodal', expected a section"),
    ("model", section(name="transformer", heads=3), r"config.model: .*width: 128.*heads = 3"),
    ("model", section(name="transformer", width=-4), r"config.model: .*width is -4"),
]
ENCODERS = {
    "vision no section": ({"vision": 3}, r"vision is 3; expected a section of fields"),
    "vision widths no list": ({"vision": {"widths": 64}}, r"widths is 64; expected a list"),
    "vision remat no flag": ({"vision": {"remat": "yes"}}, r"remat is 'yes', expected True or F"),
    "share_cameras no flag": ({"share_cameras": 1}, r"share_cameras is 1, expected True or False"),
    "language heads": ({"language": {"heads": 5}}, r"width: 64 is not a multiple of"),
}
CASES = {f"{n} = {v!r:.60}": (with_((n, v)), told) for n, v, told in FIELDS}
CASES |= {
    f"encoder: {name}": (
        with_(("model.encoder", section(name="multimodal", **fields))),
        rf"config.model: .*{told}",
    )
    for name, (fields, told) in ENCODERS.items()
}
CASES |= {
    "crop larger than the images": (
        with_(
            ("data.open_x.cameras", ("wrist",)),
            ("data.open_x.image_size", (64, 64)),
            ("augmentation.crop", (64, 65)),
        ),
        r"config.augmentation: crop is \(64, 65\) for images of 64x64 pixels",
    ),
    "streamed, data first": (
        with_(("data.placement", "stream"), ("data.order", "data_first")),
        r"config.data.order is 'data_first' and placement 'stream'",
    ),
    "open_x of one source alone": (
        with_(("data.sources.a.open_x", "bridge_orig")),
        r"config.data: source 'b' has the format 'rlds' and",
    ),
}


def test_what_the_cases_start_from_is_right(bench):
    with_()(bench)
    with_(("train.clip_norm", INF), ("policy.clip", 1), ("data.shards", 4))(bench)
