"""Half precision and int8 for a LiteRT file, by Google's ai-edge-quantizer.

The weights of convolutions and matrix products change; everything else stays float32.
"""

from pathlib import Path

from mrcnn.packages import require

KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def reduce(path: Path, precision: str) -> None:
    """Rewrite a LiteRT file.

    Args:
        path: The file.
        precision: "float16" stores weights as float16. "int8" stores weights as int8, per channel, and
            quantizes the inputs of these layers while they run, by the range of each.
    """
    module, types, algorithms = (
        require(f"ai_edge_quantizer.{name}", f"Exporting {path} needs", package="ai-edge-quantizer")
        for name in ("quantizer", "qtyping", "algorithm_manager")
    )
    quantizer = module.Quantizer(bytearray(path.read_bytes()))
    for kind in KINDS:
        operation = types.TFLOperationName[kind]
        if precision == "float16":
            casting = algorithms.AlgorithmName.FLOAT_CASTING
            quantizer.add_weight_only_config(".*", operation, 16, algorithm_key=casting)
        else:
            quantizer.add_dynamic_config(".*", operation, 8)
    path.write_bytes(quantizer.quantize(enable_progress_report=False).quantized_model)
