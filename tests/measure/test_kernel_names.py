"""Names of kernels as profilers print them, and the families that they belong to."""

from __future__ import annotations

import pytest

from pytest_fluxperf.measure.kernel_names import LONGEST_FAMILY, family

SAME = [
    (
        "triton_poi_fused__to_copy_add_mul_12",
        "triton_poi_fused__to_copy_add_mul_3",
        "triton_poi_fused__to_copy_add_mul",
    ),
    ("triton_red_fused_native_layer_norm_0d1d2d3de4de", "triton_red_fused_native_layer_norm_7", None),
    (
        "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT",
        "nvjet_hsh_128x256_64x4_2x1_v_bz_coopB_NNT",
        "nvjet_hsh_NNT",
    ),
    (
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_128x128x128_1x1x1_kernel0_0",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16",
    ),
    (
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x64_32x6_tn_align8>(T1::Params)",
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_256x128_64x3_tn_align8>(T1::Params)",
        "cutlass_80_tensorop_bf16_s16816gemm_bf16_tn",
    ),
    (
        "void pytorch_flash::flash_fwd_kernel<"
        "Flash_fwd_kernel_traits<128, 128, 64, 4, false, false, cutlass::bfloat16_t>, "
        "false, false>(pytorch_flash::Flash_fwd_params)",
        "void pytorch_flash::flash_fwd_kernel<"
        "Flash_fwd_kernel_traits<128, 64, 32, 4, false, false, cutlass::bfloat16_t>, "
        "false, true>(pytorch_flash::Flash_fwd_params)",
        "pytorch_flash::flash_fwd_kernel bf16",
    ),
    (
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>::Params)",
        "fmha_cutlassF_bf16_aligned_32x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>::Params)",
        "fmha_cutlassF_bf16_aligned_rf_sm80",
    ),
    (
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize256x128x64_warpgroupsize2x1x1_execute_segment_k_off_kernel__5x_cublas",
        None,
    ),
    ("cpp_fused_add_mul_3", "cpp_fused_add_mul_11", "cpp_fused_add_mul"),
    ("Torch-Compiled Region: 0/0", "Torch-Compiled Region: 3/1", "Torch-Compiled Region"),
    (
        "## Call CompiledFxGraph fni6ixxvmqouh3lkdg56zwputksru5nh2q4ghdfkephqheveqosh ##",
        "## Call CompiledFxGraph fq6ixxvmqouh3lkdg56zwputksru5nh2q4ghdfkephqheveqosb ##",
        "compiled graph",
    ),
]


@pytest.mark.parametrize(("one", "other", "expected"), SAME, ids=[str(i) for i in range(len(SAME))])
def test_builds_of_one_kernel_are_one_family(one, other, expected):
    assert family(one) == family(other)
    assert expected is None or family(one) == expected


ELEMENTWISE = "void at::native::{}elementwise_kernel<{}, at::native::{}>(int, at::native::{})"
DIFFERENT = [
    "triton_poi_fused_add_mul_1",
    "triton_poi_fused_add_1",
    "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT",
    "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_TNT",
    "nvjet_qqtst_256x128_64x4_1x2_h_bz_coopA_TNT",
    "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, float, "
    "at::native::binary_internal::MulFunctor<float> >, std::array<char*, 3ul> >(int)",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
    "std::array<char*, 3ul> >(int)",
    "void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda(at::TensorIteratorBase&)::"
    "{lambda(float)#1}, std::array<char*, 2ul> >(int)",
    "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<"
    "at::native::direct_copy_kernel_cuda("
    "at::TensorIteratorBase&)::{lambda()#3}::operator()() const::{lambda()#7}> >(int)",
    "Memcpy DtoD (Device -> Device)",
    "Memcpy HtoD (Pageable -> Device)",
    "Memset (Device)",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math",
    "aten::max_pool2d",
    "aten::convolution",
]  # fmt: skip


def test_different_operations_stay_apart():
    assert len({family(name) for name in DIFFERENT}) == len(DIFFERENT)


def test_operators_keep_their_names():
    assert family("aten::max_pool2d") == "aten::max_pool2d"
    assert family("aten::_scaled_dot_product_attention_math") == "aten::_scaled_dot_product_attention_math"


def test_a_copy_names_what_it_does():
    copy = next(name for name in DIFFERENT if "direct_copy" in name)
    assert family(copy) == "native::elementwise_kernel direct_copy_kernel_cuda"


def test_no_name_is_lost_or_endless():
    for name in ("<lambda>", "128x128", "_3", "", "x" * 5000):
        assert len(family(name)) <= LONGEST_FAMILY
    assert family("_3")
