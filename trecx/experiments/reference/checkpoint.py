"""Reads TensorFlow checkpoints, in a process of its own: `python checkpoint.py OUT FOLDER...`.

TensorFlow and the compiler that PyTorch loads before it trains crash each other within one process. So this file
imports nothing of the package, and hands the arrays over in a file: OUT is an .npz with `NUMBER/LAYER/VARIABLE`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read(tensorflow: Any, folder: str) -> dict[str, NDArray[Any]]:
    """The variables of a saved Keras model's layers, such as 'conv2d_3/kernel'; the optimiser's are left out."""
    graph_pb2 = import_module("tensorflow.core.protobuf.trackable_object_graph_pb2")
    reader = tensorflow.train.load_checkpoint(f"{folder}/variables/variables")
    graph = graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    found: dict[str, NDArray[Any]] = {}
    for node in graph.nodes:
        for variable in node.attributes:
            key, name = variable.checkpoint_key, variable.full_name
            if key.startswith("layer_with_weights-") and ".OPTIMIZER_SLOT" not in key:
                if name in found:
                    raise ValueError(f"{name} comes twice")
                found[name] = reader.get_tensor(key)
    return found


def main(argv: Sequence[str]) -> int:
    """Write the file; 1 with one line on standard output that says which folder cannot be read."""
    out, *folders = argv
    tensorflow = import_module("tensorflow")
    arrays: dict[str, Any] = {}
    for number, folder in enumerate(folders):
        try:
            arrays |= {f"{number}/{name}": array for name, array in read(tensorflow, folder).items()}
        except Exception as error:  # TensorFlow has a dozen kinds of errors for a file that is not whole
            print(f"{folder} cannot be read as a Keras model ({' '.join(str(error).split())})")
            return 1
    np.savez(out, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
