"""Facts of the TFLite schema, version 3, that reading and slicing need (tensorflow/compiler/mlir/lite/schema).

Tables of a flatbuffer are arrays of fields; the numbers here are the positions of the fields in their tables.
"""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = [
    "ACTIVATIONS",
    "FILE_IDENTIFIER",
    "OPERATOR_NAMES",
    "OPTIONS",
    "OPTIONS_TYPES",
    "TENSOR_DTYPES",
    "BufferField",
    "MetadataField",
    "ModelField",
    "OperatorCodeField",
    "OperatorField",
    "QuantizationField",
    "SignatureField",
    "SubGraphField",
    "TensorField",
]

FILE_IDENTIFIER: Final = b"TFL3"


class ModelField:
    """Fields of the root table."""

    VERSION, OPERATOR_CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, _METADATA_BUFFER, METADATA, SIGNATURE_DEFS = range(8)


class SignatureField:
    """Fields of `SignatureDef`."""

    INPUTS, OUTPUTS, KEY = range(3)


class OperatorCodeField:
    """Fields of `OperatorCode`.

    The operator is the larger of its two codes (the first one is an older, one-byte form).
    """

    DEPRECATED_BUILTIN_CODE, CUSTOM_CODE, VERSION, BUILTIN_CODE = range(4)


class SubGraphField:
    """Fields of `SubGraph`."""

    TENSORS, INPUTS, OUTPUTS, OPERATORS = range(4)


class TensorField:
    """Fields of `Tensor`."""

    SHAPE, TYPE, BUFFER, NAME, QUANTIZATION, IS_VARIABLE, SPARSITY, SHAPE_SIGNATURE = range(8)


class QuantizationField:
    """Fields of `QuantizationParameters`."""

    _MIN, _MAX, SCALE, ZERO_POINT, _DETAILS_TYPE, _DETAILS, QUANTIZED_DIMENSION = range(7)


class OperatorField:
    """Fields of `Operator`."""

    OPCODE_INDEX, INPUTS, OUTPUTS, OPTIONS_TYPE, OPTIONS = range(5)


class BufferField:
    """Fields of `Buffer`; `OFFSET` and `SIZE` are only used by files over 2 GiB."""

    DATA, OFFSET, SIZE = range(3)


class MetadataField:
    """Fields of `Metadata`."""

    NAME, BUFFER = range(2)


# dtypes of tensors that numpy can view; the others (strings, 4-bit, resources, ...) are read as None and never sliced.
TENSOR_DTYPES: Final[dict[int, np.dtype[np.generic]]] = {
    code: np.dtype(name)
    for code, name in {
        0: "float32",
        1: "float16",
        2: "int32",
        3: "uint8",
        4: "int64",
        6: "bool",
        7: "int16",
        9: "int8",
        10: "float64",
        12: "uint64",
        15: "uint32",
        16: "uint16",
    }.items()
}

ACTIVATIONS: Final = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

# The options that slicing and costing look at: operator -> (name, byte width, default) of each leading field of its
# options table. A width of 1 is an enumeration or a flag, 4 an integer.
_CONVOLUTION = (("padding", 1, 0), ("stride_w", 4, 0), ("stride_h", 4, 0))
_POOLING = (*_CONVOLUTION, ("filter_width", 4, 0), ("filter_height", 4, 0), ("activation", 1, 0))
OPTIONS: Final[dict[str, tuple[tuple[str, int, int], ...]]] = {
    "CONV_2D": (*_CONVOLUTION, ("activation", 1, 0), ("dilation_w", 4, 1), ("dilation_h", 4, 1)),
    "DEPTHWISE_CONV_2D": (
        *_CONVOLUTION,
        ("depth_multiplier", 4, 0),
        ("activation", 1, 0),
        ("dilation_w", 4, 1),
        ("dilation_h", 4, 1),
    ),
    "MAX_POOL_2D": _POOLING,
    "AVERAGE_POOL_2D": _POOLING,
    "FULLY_CONNECTED": (("activation", 1, 0), ("weights_format", 1, 0), ("keep_num_dims", 1, 0)),
    "ADD": (("activation", 1, 0),),
    "MUL": (("activation", 1, 0),),
    "SUB": (("activation", 1, 0),),
    "DIV": (("activation", 1, 0),),
    "CONCATENATION": (("axis", 4, 0), ("activation", 1, 0)),
    "MEAN": (("keep_dims", 1, 0),),
    "TRANSPOSE_CONV": (*_CONVOLUTION, ("activation", 1, 0)),
    "STRIDED_SLICE": (
        ("begin_mask", 4, 0),
        ("end_mask", 4, 0),
        ("ellipsis_mask", 4, 0),
        ("new_axis_mask", 4, 0),
        ("shrink_axis_mask", 4, 0),
        ("offset", 1, 0),
    ),
}

# `BuiltinOptions` by number: which table of options these operators have.
OPTIONS_TYPES: Final[dict[str, int]] = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 2,
    "MAX_POOL_2D": 5,
    "AVERAGE_POOL_2D": 5,
    "FULLY_CONNECTED": 8,
    "CONCATENATION": 10,
    "ADD": 11,
    "MUL": 21,
    "MEAN": 27,
    "SUB": 28,
    "DIV": 29,
    "STRIDED_SLICE": 32,
    "TRANSPOSE_CONV": 49,
}

# `BuiltinOperator`, by number.
OPERATOR_NAMES: Final[tuple[str, ...]] = tuple(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
    ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
    LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL
    FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
    REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
    HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
    HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
    ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
    DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
    STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
    STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
    STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
    STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
    STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
    STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
    """.split()  # noqa: SIM905 - 210 quoted names would be harder to read
)
