"""The authors' weights in our networks: where each variable lands, what is refused, and what the models score."""

import importlib.util
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trecx import data as datasets
from trecx import paths
from trecx.cli import main
from trecx.errors import TrecxError
from trecx.experiments import reference
from trecx.experiments.reference import MODELS, Released, assign
from trecx.experiments.runs import evaluate as evaluate_again
from trecx.models.build import build
from trecx.paper import paper
from trecx.tasks import TASKS
from trecx.training.batches import to_input
from trecx.training.loop import log_probs

Layers = dict[str, dict[str, np.ndarray]]

# Largest Keras softmax of the early exits on five test samples: the original models' answers.
FACTS_AT = [0, 350, 1500, 3000, 4850]
FACTS = {
    "ic-trecx_ev": [[0.710330, 0.728927, 0.999747, 0.884861, 0.645556]],
    "ic-trecx_no_ev": [[0.854268, 0.713533, 0.999817, 0.439978, 0.832637]],
    "ic-branchynet": [
        [0.393260, 0.820106, 0.999794, 0.508987, 0.641341],
        [0.885415, 0.870272, 0.999980, 0.652727, 0.521323],
    ],
    "ic-sdn": [
        [0.377472, 0.368834, 0.940387, 0.396028, 0.305282],
        [0.530608, 0.567330, 0.999903, 0.558939, 0.537113],
    ],
    "kws-trecx_ev": [[0.987537, 0.847211, 0.995316, 0.990293, 0.995422]],
    "kws-trecx_no_ev": [[0.994227, 0.687825, 0.998783, 0.999687, 0.998762]],
    "kws-trecx_concat": [[0.999775, 0.985536, 0.998554, 0.999997, 0.994878]],
    "kws-branchynet": [
        [0.909104, 0.565657, 0.991076, 0.997757, 0.993163],
        [0.983619, 0.673418, 0.997894, 0.999218, 0.997315],
    ],
    "kws-sdn": [
        [0.735872, 0.445251, 0.802808, 0.809661, 0.356918],
        [0.964294, 0.620797, 0.993348, 0.969759, 0.952922],
        [0.998780, 0.610081, 0.994698, 0.981692, 0.992889],
    ],
}


def needs(*packages: str) -> None:
    """Skip without a package of the extra `reference`. TensorFlow must not be loaded into the process of the tests."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install '.[reference]'")


# --- Mapping, on synthetic layers --------------------------------------------------------------------------------


class Keras:
    """Layers named and shaped as Keras does, in the order of creation; every array holds one number of its own."""

    def __init__(self, offset: int = 0) -> None:
        self.layers: Layers = {}
        self.offset, self.made, self.value = offset, dict[str, int](), 0.0

    def _auto(self, kind: str) -> str:
        number = self.made[kind] = self.made.get(kind, self.offset - 1) + 1
        return f"{kind}_{number}" if number else kind

    def _add(self, name: str, **shapes: tuple[int, ...]) -> float:
        """Returns the number that fills the first variable."""
        first = self.value + 1
        for variable, shape in shapes.items():
            self.value += 1
            self.layers.setdefault(name, {})[variable] = np.full(shape, self.value, np.float32)
        return first

    def conv(self, kernel: int | tuple[int, int], inputs: int, outputs: int, name: str = "") -> float:
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        return self._add(name or self._auto("conv2d"), kernel=(*window, inputs, outputs), bias=(outputs,))

    def depthwise(self, kernel: int, channels: int, name: str = "") -> float:
        shape = (kernel, kernel, channels, 1)
        return self._add(name or self._auto("depthwise_conv2d"), depthwise_kernel=shape, bias=(channels,))

    def norm(self, channels: int) -> float:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        return self._add(self._auto("batch_normalization"), **dict.fromkeys(names, (channels,)))

    def dense(self, inputs: int, outputs: int, name: str = "") -> float:
        return self._add(name or self._auto("dense"), kernel=(inputs, outputs), bias=(outputs,))

    def shuffled(self) -> Layers:
        order = np.random.default_rng(0).permutation(len(self.layers))
        names = [list(self.layers)[i] for i in order]
        return {name: self.layers[name] for name in names}


def resnet(keras: Keras) -> dict[str, float]:
    """ResNet-8 without heads; the numbers that mark some of its layers."""
    marks = {"stem": keras.conv(3, 3, 16)}
    keras.norm(16)
    for stack, (inputs, outputs) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
        marks[f"stack{stack}.first"] = keras.conv(3, inputs, outputs)
        marks[f"stack{stack}.norm"] = keras.norm(outputs)
        marks[f"stack{stack}.second"] = keras.conv(3, outputs, outputs)
        if stack > 1:
            marks[f"stack{stack}.shortcut"] = keras.conv(1, inputs, outputs)
        keras.norm(outputs)
    return marks


def separable_stack(keras: Keras, stem: tuple[Any, int, int], blocks: list[tuple[int, int]]) -> list[float]:
    """DS-CNN or MobileNet without heads; the numbers of the depthwise layers."""
    keras.conv(*stem)
    keras.norm(stem[2])
    marks = []
    for inputs, outputs in blocks:
        marks.append(keras.depthwise(3, inputs))
        keras.norm(inputs)
        keras.conv(1, inputs, outputs)
        keras.norm(outputs)
    return marks


def mobilenet(keras: Keras) -> list[float]:
    widths = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    return separable_stack(keras, (3, 3, 8), list(pairwise(widths)))


def value_of(module: Any) -> float:
    """The one number that fills a module's kernel, or a batch norm's gamma."""
    (value,) = module.weight.detach().unique().tolist()
    return value


@pytest.mark.parametrize("offset", [0, 9])
def test_resnet_with_ev_in_any_order_of_layers(offset: int) -> None:
    keras = Keras(offset)
    marks = resnet(keras)
    wide = keras.conv(1, 16, 32, name="pointwise_conv_ee_1")
    # The same shape as the early one, and made before it.
    final_view = keras.depthwise(2, 32, name="depth_conv_eefinal_out")
    early = keras.depthwise(2, 32, name="depth_conv_ee_1")
    early_dense, final_dense = keras.dense(512, 10, name="ee_out"), keras.dense(576, 10, name="ef_out")
    network = build("ic", "trecx_ev")
    assign(network, keras.shuffled())
    (head,) = network.exits.values()
    pair = network.depthwise_pair()
    assert pair is not None
    assert [value_of(layer) for layer in pair] == [early, final_view]
    assert pair[0].bias[0].item() == early + 1
    assert value_of(head.features[0][0]) == wide
    assert [value_of(head.classify[-1]), value_of(network.final.classifier)] == [early_dense, final_dense]
    stages = network.backbone
    assert value_of(stages.stem[0]) == marks["stem"]
    for name, stage in list(stages.named_children())[1:]:
        first, second = (m for m in stage.body.modules() if isinstance(m, nn.Conv2d))
        assert [value_of(first), value_of(second)] == [marks[f"{name}.first"], marks[f"{name}.second"]]
        if name != "stack1":
            assert value_of(stage.shortcut[-1]) == marks[f"{name}.shortcut"]
        norm = next(m for m in stage.modules() if isinstance(m, nn.BatchNorm2d))
        found = [t[0].item() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
        assert found == [marks[f"{name}.norm"] + k for k in range(4)]


@pytest.mark.parametrize("offset", [0, 4])
def test_ds_cnn_has_an_unnamed_early_dense_layer(offset: int) -> None:
    keras = Keras(offset)
    marks = separable_stack(keras, ((10, 4), 1, 64), [(64, 64)] * 4)
    final_view = keras.depthwise(3, 32, name="depth_conv_eefinal_out")
    early = keras.depthwise(3, 32, name="depth_conv_ee_1")
    early_dense, final_dense = keras.dense(192, 12), keras.dense(96, 12, name="ef_out")
    network = build("kws", "trecx_ev")
    assign(network, keras.shuffled())
    pair = network.depthwise_pair()
    assert pair is not None
    assert [value_of(layer) for layer in pair] == [early, final_view]
    (head,) = network.exits.values()
    assert [value_of(head.classify[-1]), value_of(network.final.classifier)] == [early_dense, final_dense]
    found = [value_of(m) for m in network.backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert found == marks


@pytest.mark.parametrize("spelling", ["pointwise_conv_ee1", "pointwise_conv_ee_1"])
@pytest.mark.parametrize("view", [True, False])
def test_mobilenet_with_and_without_ev(view: bool, spelling: str) -> None:
    """These checkpoints exist in the authors' repository only; their layout is known from the code that made them."""
    keras = Keras(2)
    marks = mobilenet(keras)
    wide = keras.conv(1, 32, 64, name=spelling)
    early = keras.depthwise(2, 64, name="depth_conv_ee_1")
    early_dense = keras.dense(576, 2)
    final_view = keras.depthwise(2, 64, name="depth_conv_eefinal_out") if view else 0.0
    final_dense = keras.dense(544 if view else 256, 2, name="ef_out")
    network = build("vww", "trecx_ev" if view else "trecx_no_ev")
    assign(network, keras.shuffled())
    (head,) = network.exits.values()
    assert value_of(head.features[0][0]) == wide
    assert value_of(head.features.depthwise) == early
    assert [value_of(head.classify[-1]), value_of(network.final.classifier)] == [early_dense, final_dense]
    if view:
        assert value_of(network.final.view.depthwise) == final_view
    found = [value_of(m) for m in network.backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert found == marks


def test_branches_come_after_the_body_in_their_order() -> None:
    keras = Keras()
    separable_stack(keras, ((10, 4), 1, 64), [(64, 64)] * 4)
    branches = [keras.conv(3, 64, 32), keras.conv(3, 64, 32)]
    denses = [keras.dense(32, 12, name="ee_1"), keras.dense(32, 12, name="ee_2")]
    keras.dense(64, 12, name="ef_out")
    network = build("kws", "branchynet")
    assign(network, keras.shuffled())
    heads = list(network.exits.values())
    assert [value_of(next(m for m in h.modules() if isinstance(m, nn.Conv2d))) for h in heads] == branches
    assert [value_of(h.classify[-1]) for h in heads] == denses


def test_layouts_are_turned_around() -> None:
    keras = Keras()
    mobilenet(keras)
    keras.dense(256, 2)
    rng = np.random.default_rng(0)
    layers = {n: {v: rng.normal(size=a.shape) for v, a in variables.items()} for n, variables in keras.layers.items()}
    network = build("vww", "baseline")
    assign(network, layers)
    stem = network.backbone.layer1[1].weight
    depthwise = next(m.weight for m in network.backbone.layer2.modules() if isinstance(m, nn.Conv2d))
    assert stem[5, 2, 0, 1].item() == pytest.approx(layers["conv2d"]["kernel"][0, 1, 2, 5])
    assert depthwise[7, 0, 2, 1].item() == pytest.approx(layers["depthwise_conv2d"]["depthwise_kernel"][2, 1, 7, 0])
    assert network.final.classifier.weight[1, 200].item() == pytest.approx(layers["dense"]["kernel"][200, 1])


def broken(change: str) -> Layers:
    keras = Keras()
    resnet(keras)
    keras.dense(64, 10)
    layers = keras.layers
    if change == "missing layer":
        del layers["conv2d_4"]
    elif change == "left-over layer":
        keras.conv(3, 64, 64)
    elif change == "unknown layer":
        layers["lstm"] = {"kernel": np.zeros(3)}
    elif change == "missing variable":
        del layers["conv2d_3"]["bias"]
    elif change == "left-over variable":
        layers["dense"]["scale"] = np.zeros(10)
    elif change == "odd shape":
        layers["conv2d_5"]["kernel"] = np.zeros((3, 3, 16, 32))
    elif change == "odd number of axes":
        layers["conv2d_5"]["kernel"] = np.zeros(32)
    elif change == "two of one place":
        layers["ef_out"] = layers["ee_out"] = layers.pop("dense")
    return layers


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing layer", "8 layers conv2d for 9 places"),
        ("left-over layer", "10 layers conv2d for 9 places"),
        ("unknown layer", "layer lstm has no place"),
        ("missing variable", "layer conv2d_3 has kernel and not bias, kernel"),
        ("left-over variable", "layer dense has bias, kernel, scale and not bias, kernel"),
        ("odd shape", r"conv2d_5/kernel has shape \(3, 3, 16, 32\), which is no \(32, 16, 1, 1\) of ours"),
        ("odd number of axes", r"conv2d_5/kernel has shape \(32,\)"),
        ("two of one place", "layer ee_out has no place"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence_and_changes_nothing(change: str, says: str) -> None:
    network = build("ic", "baseline")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(TrecxError, match=f"^x.h5 does not fit: .*{says}"):
        assign(network, broken(change), source="x.h5")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_two_names_for_one_layer_are_refused() -> None:
    keras = Keras()
    resnet(keras)
    for name in ("ee_out", "ee_1"):
        keras.dense(1024, 10, name=name)
    keras.dense(64, 10, name="ef_out")
    with pytest.raises(TrecxError, match=r"two of the layers .* have the same place"):
        assign(build("ic", "baseline_ee"), keras.layers)


# --- Reading, and what may be missing ----------------------------------------------------------------------------


def make_clone(folder: Path, *models: Released) -> Path:
    """A folder with empty files in the places of the authors' models."""
    for model in models or MODELS:
        path = folder / model.path
        names = [path] if path.suffix else [path / "variables" / f"variables.{end}" for end in ("data-0", "index")]
        for name in names:
            name.parent.mkdir(parents=True, exist_ok=True)
            name.touch()
    return folder


def test_h5_is_read_by_layer_without_the_optimiser(tmp_path: Path) -> None:
    needs("h5py")
    import h5py

    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights/conv2d/conv2d/kernel:0"] = np.arange(8.0).reshape(2, 2, 1, 2)
        file["model_weights/conv2d/conv2d/bias:0"] = np.zeros(2)
        file["optimizer_weights/Adam/conv2d/kernel/m:0"] = np.zeros(8)
    (layers,) = reference.read_layers(tmp_path / "m.h5")
    assert {layer: sorted(variables) for layer, variables in layers.items()} == {"conv2d": ["bias", "kernel"]}
    assert layers["conv2d"]["kernel"].shape == (2, 2, 1, 2)


@pytest.mark.parametrize(("model", "package"), [(MODELS[0], "h5py"), (MODELS[1], "tensorflow")])
def test_damaged_files_end_in_one_sentence(tmp_path: Path, model: Released, package: str) -> None:
    needs(package)
    root = make_clone(tmp_path, model)
    with pytest.raises(TrecxError, match=r"cannot be read as a Keras model .*: fetch it again") as caught:
        reference.convert([model], root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("model", "package"), [(MODELS[0], "h5py"), (MODELS[1], "tensorflow")])
def test_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Released, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TrecxError, match=rf"need the package {package}: run `pip install '.\[reference\]'`"):
        reference.convert([model], make_clone(tmp_path, model))


def test_tensorflow_stays_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Loaded first, it crashes what PyTorch loads to train."""
    needs("tensorflow")
    with pytest.raises(TrecxError):
        reference.convert([MODELS[1]], make_clone(tmp_path, MODELS[1]))
    assert "tensorflow" not in sys.modules


def test_missing_folder_and_folder_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference", str(tmp_path / "gone")]) == 2
    assert main(["reference", str(tmp_path), "--json"]) == 2
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert first.endswith("gone is no folder: give a clone of the authors' repository, " + repository())
    assert second.endswith("pretrainedResnet.h5: give a clone of " + repository())
    assert "holds none of the authors' models" in second
    assert captured.out == ""


def repository() -> str:
    return paper()["official_code"]["repository"]


def test_half_a_checkpoint_counts_as_missing(tmp_path: Path) -> None:
    root = make_clone(tmp_path, MODELS[0], MODELS[1], MODELS[2])
    (root / MODELS[2].path / "variables" / "variables.data-0").unlink()
    present, missing = reference.find_models(root)
    assert present == [MODELS[0], MODELS[1]]
    assert missing == list(MODELS[2:])


def test_missing_data_set_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_DATA", str(tmp_path))
    monkeypatch.setattr(reference, "convert", lambda models, root: [build(m.task, m.method) for m in models])
    with pytest.raises(TrecxError, match="run `python -m trecx data cifar10`"):
        reference.evaluate_released(make_clone(tmp_path, MODELS[0]))


def test_a_record_is_written_and_published_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 49, 10, 1)).astype(np.float32), np.arange(40, dtype=np.uint8) % 12
    made = datasets.Dataset("speech_commands", "t", "d", False, (), x, y, x, y, x, y, "0" * 64)
    monkeypatch.setattr(datasets, "load", lambda name: made)
    torch.manual_seed(0)
    network = build("kws", "trecx_ev")
    monkeypatch.setattr(reference, "convert", lambda models, root: [network])
    model = next(m for m in MODELS if m.name == "kws-trecx_ev")
    said: list[str] = []
    (record,) = reference.evaluate_released(make_clone(tmp_path / "clone", model), publish=True, say=said.append)
    (public,) = reference.released()
    assert record.weights.is_file()
    assert not public.weights.exists()
    assert len(public.history) == 0
    assert sorted(public.manifest["source"]["sha256"]) == ["variables.data-0", "variables.index"]
    exact = log_probs(network, to_input(x), "kws")
    np.testing.assert_allclose(public.trace().scores[:, 0], exact[:, 0].exp().amax(1), atol=1e-6)
    assert public.accuracies().tolist() == (exact.argmax(2).numpy() == y[:, None]).mean(0).tolist()
    assert said[0].startswith("not in ")
    assert "vww_96.h5" in said[0]
    json.dumps(reference.summary(public), allow_nan=False)
    again = evaluate_again(record, threshold=0.5)  # as any other record
    assert again["accuracies"] == again["recorded"]


# --- The published records ---------------------------------------------------------------------------------------

PUBLISHED = [model for model in MODELS if (paths.PUBLISHED / reference.GROUP / model.name).is_dir()]
EVALUATED = [model for model in MODELS if model.task != "vww" or model.method == "baseline"]


def each(models: list[Released]) -> Any:
    return pytest.mark.parametrize("model", models, ids=lambda model: model.name)


def golden(model: Released) -> dict[str, Any]:
    return paper()["authors_checkpoints"][model.task][model.golden]


def published(model: Released) -> reference.ReferenceRecord:
    return reference.ReferenceRecord(paths.PUBLISHED / reference.GROUP / model.name)


def test_the_twelve_models_at_hand_are_published() -> None:
    assert [model for model in PUBLISHED if model in EVALUATED] == EVALUATED


@each(PUBLISHED)
def test_published_accuracies_are_those_of_the_original_models(model: Released) -> None:
    record = published(model)
    if accuracies := golden(model).get("accuracies") if model in EVALUATED else None:
        assert (100 * record.accuracies()).tolist() == pytest.approx(accuracies, abs=0.02)
    samples = {"ic": 10_000, "kws": 4_890, "vww": 1_000}[model.task]
    assert len(record.predictions["test_labels"]) == record.manifest["data"]["sizes"]["test"] == samples
    assert not record.weights.exists()
    assert record.manifest["data"]["name"] == TASKS[model.task].full_data


@each([model for model in PUBLISHED if model.name in FACTS])
def test_published_confidences_are_those_of_the_original_models(model: Released) -> None:
    np.testing.assert_allclose(published(model).trace().scores[FACTS_AT].T, FACTS[model.name], rtol=0, atol=1e-5)


@each([model for model in PUBLISHED if model.task == "ic" and model.method != "baseline"])
def test_operating_points_are_those_of_the_original_models(model: Released) -> None:
    rows = reference.summary(published(model))["points"]
    found = {r["drop"]: r for r in rows if (r["reference"], r["protocol"]) == ("paper's baseline", "paper")}
    for drop, expected in golden(model)["points"].items():
        assert found[drop]["reached"] == (expected is not None)
        for quantity, value in (expected or {}).items():
            digits = {"mflops": 3, "threshold": 3, "accuracy": 2, "reduction": 1}[quantity]
            assert round(found[drop][quantity], digits) == pytest.approx(value), quantity


def test_the_headline_point_of_resnet_is_exact() -> None:
    point = next(
        p
        for p in reference.summary(published(next(m for m in MODELS if m.name == "ic-trecx_ev")))["points"]
        if (p["reference"], p["protocol"], p["drop"]) == ("paper's baseline", "paper", 1)
    )
    assert (round(point["mflops"], 3), round(point["threshold"], 3), point["accuracy"]) == (19.825, 0.901, 86.2)


def test_cross_fitting_keeps_the_number_of_points() -> None:
    rows = reference.released_points(published(next(m for m in MODELS if m.name == "kws-trecx_ev")))
    assert len(rows) == 2 * 2 * 3  # references, protocols, drops
    assert rows["protocol"].value_counts().to_dict() == {"paper": 6, "other half": 6}
    assert reference.released_points(published(MODELS[0])).empty  # no early exit


# --- The real checkpoints ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(shared: Callable[[str], Path]) -> Path:
    """The released weights, where they are at hand with what reads them."""
    root = shared("reference")
    needs("tensorflow", "h5py")
    return root


def full_data(task: str) -> datasets.Dataset:
    source = datasets.DATASETS[TASKS[task].full_data]
    if not source.path.exists():
        pytest.skip(f"needs the data set {source.name}")
    return datasets.load(source.name)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ic", "kws"])
def test_softmax_is_that_of_the_original_models(clone: Path, shared: Callable[[str], Path], task: str) -> None:
    x = to_input(full_data(task).x_test[::50])
    models = [model for model in EVALUATED if model.task == task]
    networks = reference.convert(models, clone)
    compared = 0
    with np.load(shared("reference/expected_softmax.npz")) as expected:
        for model, network in zip(models, networks, strict=True):
            prefix = f"{Path(model.path).parts[0]}/{Path(model.path).name}/"
            keys = [key for key in expected.files if key.startswith(prefix)]
            ours = log_probs(network, x, task).exp().numpy()
            for key in keys:
                index = {"ee_out": 0, "ee_1": 0, "ee_2": 1, "ee_3": 2}.get(key.removeprefix(prefix), -1)
                np.testing.assert_allclose(ours[:, index], expected[key], rtol=0, atol=1e-5, err_msg=key)
                compared += 1
    assert compared == {"ic": 10, "kws": 14}[task]


@pytest.mark.slow
def test_command_line_evaluates_the_released_weights(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in TASKS:
        full_data(task)
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path))
    assert main(["reference", str(clone), "--json"]) == 0
    captured = capsys.readouterr()
    rows = {f"{row['task']}-{row['method']}": row for row in json.loads(captured.out)}
    for model in EVALUATED:
        assert rows[model.name]["accuracies"] == pytest.approx(golden(model)["accuracies"], abs=0.02)
        weights = tmp_path / reference.GROUP / model.name / "weights.safetensors"
        assert weights.is_file()
    first = next(p for p in rows["ic-trecx_ev"]["points"] if p["protocol"] == "paper")
    assert round(first["mflops"], 3) == 19.825
    if len(rows) < len(MODELS):
        assert captured.err.startswith("not in ")
