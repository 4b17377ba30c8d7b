"""Images a second that Keras trains ResNet-8 T-RecX with (needs TensorFlow, nothing of this project).

The same network, loss and batch as `run.py`: two exits, cross-entropy with w = 0.5, batch 128, SGD with
Nesterov momentum. Batches are random and ready-made: no augmentation, no input pipeline.
"""

import json
import time

import numpy as np
from tensorflow import keras
from tensorflow.keras import layers

L2 = keras.regularizers.l2(1e-4)


def conv(x, channels, kernel=3, stride=1):
    return layers.Conv2D(
        channels, kernel, stride, padding="same", kernel_initializer="he_normal", kernel_regularizer=L2
    )(x)


def conv_bn(x, channels, stride=1, relu=True):
    x = layers.BatchNormalization()(conv(x, channels, 3, stride))
    return layers.ReLU()(x) if relu else x


def stack(x, channels, stride):
    body = conv_bn(conv_bn(x, channels, stride), channels, relu=False)
    shortcut = conv(x, channels, 1, stride) if stride > 1 else x
    return layers.ReLU()(layers.Add()([body, shortcut]))


def network():
    image = layers.Input((32, 32, 3))
    tap = stack(conv_bn(image, 16), 16, 1)
    early = layers.DepthwiseConv2D(2, 2, padding="same", activation="relu")(conv(tap, 32, 1))
    early = layers.Flatten()(layers.AveragePooling2D(4)(early))
    final = stack(stack(tap, 32, 2), 64, 2)
    view = layers.Lambda(lambda maps: maps[..., :32])(final)
    view = layers.Flatten()(layers.DepthwiseConv2D(2, 2, padding="same", activation="relu")(view))
    pooled = layers.Flatten()(layers.AveragePooling2D(8)(final))
    outputs = [
        layers.Dense(10, activation="softmax")(early),
        layers.Dense(10, activation="softmax")(layers.Concatenate()([pooled, view])),
    ]
    return keras.Model(image, outputs)


def main():
    model = network()
    assert model.count_params() == 89_780, model.count_params()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        loss=["sparse_categorical_crossentropy"] * 2,
        loss_weights=[0.5, 1.0],
    )
    draw = np.random.default_rng(0)
    x = draw.random((2560, 32, 32, 3), dtype=np.float32)
    y = draw.integers(0, 10, 2560)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        model.fit(x, [y, y], batch_size=128, epochs=1, verbose=0)
        times.append(time.perf_counter() - start)
    print(json.dumps({"images_per_second": len(x) / float(np.median(times[1:])), "tensorflow": keras.__version__}))


main()
