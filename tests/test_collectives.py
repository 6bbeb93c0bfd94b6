"""Bytes of collectives, counted by hand in the text of compiled programs."""

import pytest

from ambient_jax import collectives

HLO = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%add (x.1: f32[], y.1: f32[]) -> f32[] {
  %x.1 = f32[] parameter(0)
  %y.1 = f32[] parameter(1)
  ROOT %sum = f32[] add(%x.1, %y.1)
}

%body (arg: (s32[], bf16[16,4])) -> (s32[], bf16[16,4]) {
  %arg = (s32[], bf16[16,4]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = bf16[16,4]{1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %gathered = bf16[128,4]{1,0} all-gather(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %t = (s32[], bf16[16,4]{1,0}) tuple(%i, %x)
}

%condition (arg.1: (s32[], bf16[16,4])) -> pred[] {
  %arg.1 = (s32[], bf16[16,4]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%open_body (arg.2: f32[2]) -> f32[2] {
  %arg.2 = f32[2]{0} parameter(0)
  ROOT %moved = f32[2]{0} collective-permute(%arg.2), source_target_pairs={{0,1},{1,0}}
}

%wrapped (p: f32[64]) -> f32[8] {
  %p = f32[64]{0} parameter(0)
  ROOT %scattered = f32[8]{0} reduce-scatter(%p), replica_groups=[1,8]<=[8], to_apply=%add
}

%fused (q: f32[10]) -> f32[10] {
  %q = f32[10]{0:T(128)} parameter(0)
  ROOT %inside = f32[10]{0:T(128)} all-reduce(%q), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
}

%all-reduce-scatter.53 (w: bf16[16,8]) -> bf16[2,8] {
  %w = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %summed = bf16[16,8]{1,0:T(8,128)(2,1)} all-reduce(%w), replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %own = bf16[2,8]{1,0:T(8,128)(2,1)} dynamic-slice(%summed, %k, %zero)
}

ENTRY %main.9 (a: f32[8,4], b: bf16[3], s: (s32[], bf16[16,4])) -> f32[8,4] {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0), metadata={op_name="all-gather(a)"}
  %b = bf16[3]{0} parameter(1)
  %s = (s32[], bf16[16,4]{1,0}) parameter(2)
  %both = (f32[8,4]{1,0:T(8,128)}, bf16[3]{0}) all-reduce(%a, %b), replica_groups={}, to_apply=%add
  %flat = f32[32]{0:T(128)S(1)} bitcast(%a)
  %begun = (f32[32]{0}, f32[256]{0}, u32[]) all-gather-start(%flat), replica_groups={{0,1},{2,3}}
  %done = f32[256]{0} all-gather-done(%begun)
  %wide = f32[64]{0} slice(%done), slice={[0:64]}
  %pair = ((f32[64]{0}), f32[8]{0}, s32[]) async-start(%wide), calls=%wrapped
  %step = ((f32[64]{0}), f32[8]{0}, s32[]) async-update(%pair), calls=%wrapped
  %part = f32[8]{0} async-done(%step), calls=%wrapped
  %ten = f32[10]{0} fusion(%q0), kind=kCustom, calls=%fused
  %mine = bf16[2,8]{1,0} fusion(%w0), kind=kCustom, calls=%all-reduce-scatter.53
  %to_all = f32[16]{0} all-to-all(f32[16]{0} %elsewhere), replica_groups={{0,1,2,3}}
  %loop = (s32[], bf16[16,4]) while(%s), condition=%condition, body=%body, backend_config=ROUNDS
  %open = f32[2]{0} while(%part), condition=%condition, body=%open_body
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%both), index=0
}
"""

HLO = HLO.replace("ROUNDS", '{"known_trip_count":{"n":"24"},"x":"1"}')


def test_every_collective_counts_as_often_as_it_runs():
    found = collectives.moved(HLO, 8)
    reduce, gather = found["all-reduce"], found["all-gather"]
    # A tuple of 32 floats and 3 halves by all 8 devices, 10 floats by pairs inside of a fusion.
    assert (reduce.count, reduce.operand_bytes) == (2, 128 + 6 + 40)
    assert reduce.sent_bytes == pytest.approx(134 * 2 * 7 / 8 + 40)
    # An asynchronous pair of 32 floats, and 64 halves in each of 24 rounds.
    assert (gather.count, gather.operand_bytes) == (25, 128 + 24 * 128)
    assert (gather.sent_bytes, gather.in_loops) == (128 + 24 * 128 * 7, 24)
    # The computation that start, update and done name, and a TPU's fusion of 128 halves.
    scatter = found["reduce-scatter"]
    assert (scatter.count, scatter.operand_bytes, scatter.sent_bytes) == (2, 512, 448)
    to_all = found["all-to-all"]
    assert (to_all.count, to_all.operand_bytes, to_all.sent_bytes) == (1, 64, 48)
    permute = found["collective-permute"]
    assert (permute.count, permute.operand_bytes, permute.sent_bytes) == (1, 8, 8)
    assert (permute.in_loops, permute.in_open_loops) == (0, 1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30),
        ("(f32[2]{0}, (s8[3], pred[5]), token[])", 16),
        ("s4[3]", 2),
        ("f8e4m3fn[6]", 6),
        ("c64[2]", 16),
        ("f32[<=8,2]", 64),
        ("f32[0,8]", 0),
    ],
)
def test_bytes_of_shapes(shape, expected):
    assert collectives.shape_bytes(shape) == expected


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{}", 8),
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['a'=2,'b'=4] {'b'}", 4),
        ("mesh['a'=2,'b'=1,'c'=4] {'a','c'}, use_global_device_ids=true", 8),
        ("mesh['a'=8] {'a':(1)2}", 2),
    ],
)
def test_the_groups_of_a_collective(groups, size):
    hlo = (
        "ENTRY %main (a: f32[2]) -> f32[16] {\n  %a = f32[2]{0} parameter(0)\n"
        f"  ROOT %g = f32[16]{{0}} all-gather(%a), channel_id=1, replica_groups={groups}\n}}"
    )
    assert collectives.moved(hlo, 8)["all-gather"].sent_bytes == 8 * (size - 1)


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        collectives.moved("HloModule empty", 8)
    none = collectives.moved("ENTRY %main (a: f32[2]) -> f32[2] {\n  ROOT %a = f32[2] p(0)\n}", 8)
    assert collectives.as_dict(none) == {}
