"""Results of accuracy studies with made-up, plausible numbers, for the tests of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.accuracy.result import (
    Ablation,
    AblationCell,
    AblationRow,
    Advice,
    AdviceItem,
    Candidate,
    ClassScore,
    Evaluation,
    Fallback,
    JudgedOutput,
    Judgement,
    LayerSensitivity,
    MetricFacts,
    NetworkTensor,
    Range,
    Score,
    Sensitivity,
    Setting,
    Sweep,
    VariantFacts,
)
from trtcalib.manifest import BatchingFacts, DataFacts, Finding, ModelFacts

DIGEST = "5a" * 32
SAMPLES = 1000
FP32 = 0.973
"""FP32's share of right samples in all of them."""

TOP1 = MetricFacts(name="top1", output="logits", is_share=True)
SQNR = MetricFacts(name="sqnr", output=None, is_share=False)

METHODS: dict[str, dict[str, Any]] = {
    "minmax": {"method": "minmax"},
    "entropy": {"method": "entropy", "variant": "tensorrt"},
    **{f"percentile {p}": {"method": "percentile", "percentile": p} for p in (99.9, 99.99, 99.999, 99.9999)},
    "mse": {"method": "mse"},
}
"""The rows of an ablation."""

LOSSES = {
    "minmax": (0.031, 0.004, 0.022, 0.028),
    "entropy": (0.031, 0.004, 0.009, 0.012),
    "percentile 99.9": (0.044, 0.019, 0.058, 0.066),
    "percentile 99.99": (0.031, 0.006, 0.004, 0.006),
    "percentile 99.999": (0.031, 0.004, 0.006, 0.008),
    "percentile 99.9999": (0.031, 0.004, 0.019, 0.024),
    "mse": (0.029, 0.003, 0.005, 0.007),
}
"""Per method, in the order of a row's cells."""

CELLS = ((False, "tensor"), (False, "channel"), (True, "float"), (True, "channel"))


def wilson(share: float, samples: int = SAMPLES) -> Range:
    """A Wilson interval with 95 %."""
    z = 1.96
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return Range(low=middle - half, high=middle + half)


def score(metric: MetricFacts) -> Score:
    """FP32's own."""
    return Score(value=FP32, interval=wilson(FP32)) if metric is TOP1 else Score(value=None, interval=None)


def judgement(loss: float, metric: MetricFacts = TOP1) -> Judgement:
    """A variant that loses so much."""
    noise = max(loss, 1e-6)
    db = -10 * math.log10(noise)
    value = FP32 - loss if metric is TOP1 else db
    return Judgement(
        value=value,
        interval=wilson(value) if metric is TOP1 else Range(low=db - 0.4, high=db + 0.5),
        loss=loss,
        loss_interval=Range(low=loss - 0.007, high=loss + 0.008) if metric is TOP1 else None,
        p_value=math.exp(-300 * abs(loss)) if metric is TOP1 else None,
        outputs=[
            JudgedOutput(name="logits", sqnr_db=db, cosine=1 - noise / 2, agreement=1 - loss, largest_difference=2.5)
        ],
    )


def setting(metric: MetricFacts = TOP1, model: str = "model.onnx") -> dict[str, Any]:
    """What every result starts with."""
    facts = Setting(
        tool_version="1.0.0",
        model=ModelFacts(path=f"../{model}", sha256=DIGEST),
        calibration=DataFacts(path="calibration.yaml", is_path=True, sha256=DIGEST, samples=500),
        batching=BatchingFacts(
            batch_size=32, batches=16, last_batch_samples=20, max_samples=None, shuffle=None, drop_last=False
        ),
        evaluation=DataFacts(path="validation.yaml", is_path=True, sha256=DIGEST, samples=SAMPLES),
        held_out=True,
        labels="labels.csv" if metric is TOP1 else None,
        metric=metric,
        reference=score(metric),
        versions={"python": "3.11.9", "onnxruntime": "1.20.0"},
        cpu="a CPU (x86_64)",
        findings=[Finding(code="few-samples", tensor=None, message="1000 samples tell apart what is 1 % apart")],
        notes=["INT8 is simulated by ONNX Runtime in float: TensorRT's kernels were not run"],
    )
    return facts.model_dump()


def variant(method: str = "entropy") -> VariantFacts:
    """Everything in INT8."""
    return VariantFacts(method=method, activations=True, weights="channel")


def evaluation(classes: int = 10) -> Evaluation:
    """FP32 against INT8 over some classes; the last classes lose most."""
    samples = SAMPLES // max(classes, 1)
    scored = [
        ClassScore(
            label=i,
            samples=samples,
            reference=samples - 2,
            reference_interval=wilson((samples - 2) / samples, samples),
            right=samples - 2 - i // 3,
            interval=wilson((samples - 2 - i // 3) / samples, samples),
        )
        for i in range(classes)
    ]
    return Evaluation(
        **setting(),
        variant=variant(),
        cache="model.cache",
        engine=None,
        judgement=judgement(0.012),
        only_reference=17,
        only_variant=5,
        classes=scored,
        quantized=8,
        weighted=9,
    )


def ablation(metric: MetricFacts = TOP1, names: Sequence[str] = ()) -> Ablation:
    """Seven methods; names replace those of the first rows."""
    called = dict(zip(METHODS, names, strict=False))
    rows = [
        AblationRow(
            method=called.get(method, method),
            recipe=recipe,
            cells=[
                AblationCell(
                    activations=activations,
                    weights=weights,
                    weight_method=None if weights == "float" else "minmax",
                    judgement=judgement(loss, metric),
                )
                for (activations, weights), loss in zip(CELLS, LOSSES[method], strict=True)
            ],
        )
        for method, recipe in METHODS.items()
    ]
    return Ablation(
        **setting(metric),
        rows=rows,
        best=called.get("percentile 99.99", "percentile 99.99"),
        indistinguishable=["percentile 99.999", "mse", called.get("entropy", "entropy")],
    )


def sweep(gain: float = 0.009, *, significant: bool = True, metric: MetricFacts = TOP1) -> Sweep:
    """Four methods that are no percentile, then a grid of percentiles with a valley."""
    recipes = {
        "entropy": METHODS["entropy"],
        "entropy (modelopt)": {"method": "entropy", "variant": "modelopt"},
        "minmax": METHODS["minmax"],
        "mse": METHODS["mse"],
    }
    losses = {"entropy": 0.014, "entropy (modelopt)": 0.017, "minmax": 0.027, "mse": 0.006}
    for p in (99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.998, 99.999, 99.9995, 99.9999):
        recipes[f"percentile {p:g}" if p < 99.999 else f"percentile {p}"] = {"method": "percentile", "percentile": p}
        losses[list(recipes)[-1]] = 0.004 + 0.02 * (math.log10(100 - p) + 2.3) ** 2 / 4
    candidates = [
        Candidate(method=method, recipe=recipe, judgement=judgement(losses[method], metric))
        for method, recipe in recipes.items()
    ]
    winner = min(candidates, key=lambda candidate: candidate.judgement.loss)
    return Sweep(
        **setting(metric),
        searched=DataFacts(path="calibration.yaml", is_path=True, sha256=DIGEST, samples=500),
        candidates=candidates,
        evaluations=len(candidates),
        baseline=Candidate(method="entropy", recipe=METHODS["entropy"], judgement=judgement(0.012, metric)),
        winner=Candidate(method=winner.method, recipe=winner.recipe, judgement=judgement(0.012 - gain, metric)),
        gain=gain,
        gain_interval=Range(low=gain - (0.006 if significant else 0.012), high=gain + 0.006),
        is_significant=significant,
        cache="sweep.cache",
    )


def node_names(nodes: int) -> list[str]:
    """Names as exporters give them, some of them long."""
    return [
        f"/model/features/block_{i // 3}/conv_{('expand', 'depthwise', 'project')[i % 3]}/Conv" for i in range(nodes)
    ]


def sensitivity(
    nodes: int = 9, names: Sequence[str] = (), metric: MetricFacts = TOP1, *, fallback: bool = True
) -> Sensitivity:
    """Nodes whose noise falls off by rank; a few clip; names replace those of the most sensitive."""
    random = np.random.default_rng(7)
    order = [*random.permutation(nodes).tolist()]
    called = node_names(nodes)
    for place, name in zip(order, names, strict=False):
        called[place] = name
    layers = []
    for rank, place in enumerate(order, 1):
        noise = 0.02 * math.exp(-rank / max(nodes / 6, 1.5)) + 1e-5
        lost = math.floor(noise * SAMPLES * 0.6) / SAMPLES if metric is TOP1 else noise
        layers.append(
            LayerSensitivity(
                rank=rank,
                name=called[place],
                operator="Gemm" if place == nodes - 1 else "Conv",
                output=f"{called[place]}_output_0",
                tensor=f"{called[place]}_input",
                macs=None if rank == 5 else 1_000_000 * (place + 1),
                only_sqnr_db=-10 * math.log10(noise),
                only_loss=lost,
                all_but_sqnr_db=-10 * math.log10(0.045 - noise * 0.9),
                all_but_loss=0.012 - lost * 0.8,
                gain=lost * 0.8,
                local_sqnr_db=-10 * math.log10(noise) + float(random.uniform(2, 9)),
                clipped_share=None if rank == 4 else float(random.uniform(0, 0.9)) if rank % 3 else 0.0,
            )
        )
    walk = 42 - np.cumsum(random.uniform(0, 30 / nodes, nodes))
    network = [
        NetworkTensor(output=f"{name}_output_0", sqnr_db=None if i == 0 else float(walk[i]))
        for i, name in enumerate(called)
    ]
    left = layers[:2]
    return Sensitivity(
        **setting(metric),
        variant=variant(),
        full=judgement(0.012 if metric is TOP1 else 0.045, metric),
        layers=layers,
        network=network,
        fallback=Fallback(
            max_loss=0.01,
            reached=True,
            nodes=[layer.name for layer in left],
            outputs=[layer.output for layer in left],
            loss=0.004,
            loss_interval=Range(low=-0.002, high=0.011),
            macs_int8=0.913,
            evaluations=6,
            dialects={
                "trtexec": " ".join(f"--layerPrecisions={layer.name}:fp16" for layer in left),
                "trtcalib build": " ".join(f"--fallback {layer.name}" for layer in left),
                "trtcalib qdq": " ".join(f"--exclude {layer.name}" for layer in left),
                "ModelOpt": " ".join(f"--nodes_to_exclude {layer.name}" for layer in left),
            },
        )
        if fallback
        else None,
    )


def advice(names: Sequence[str] = ()) -> Advice:
    """Three things to do, the first two with a command and a check."""
    name = names[0] if names else "/model/features/block_1/conv_depthwise/Conv"
    items = [
        AdviceItem(
            code="method",
            title="Calibrate with percentile 99.99 instead of entropy",
            evidence=[
                "With it, INT8 is right on 96.7 % of 1,000 held-out samples (95.4 to 97.7), with entropy on 96.1 %.",
                "percentile 99.999 and mse cannot be told from it on so many samples.",
            ],
            command="trtcalib calibrate model.onnx --data calibration.yaml --calibrator percentile-99.99 -o model.cache",
            reproduce="trtcalib ablate model.onnx --data calibration.yaml --eval-data validation.yaml --labels labels.csv",
            checked=judgement(0.006),
        ),
        AdviceItem(
            code="fallback",
            title=f"Leave 2 of 9 weighted nodes in FP16, {name} first",
            evidence=[f"{name} alone in INT8 loses 0.8 points.", "91.3 % of the multiply-accumulates stay in INT8."],
            command=f"trtcalib build model.onnx --cache model.cache --fallback {name}",
            reproduce="trtcalib sensitivity model.onnx --data calibration.yaml --labels labels.csv --max-loss 0.01",
            checked=judgement(0.004),
        ),
        AdviceItem(
            code="samples",
            title="Look at the sample digit-0031.png: it alone stretches the range of 3 tensors",
            evidence=["Its maximum is 2.4 times the next sample's."],
            command=None,
            reproduce=None,
            checked=None,
        ),
    ]
    return Advice(
        **setting(),
        before=judgement(0.012),
        after=judgement(0.003),
        items=items,
        sources={"ablation": "ablation.json", "sensitivity": "sensitivity.json", "study": "study/study.json"},
    )


Result = Advice | Evaluation | Ablation | Sweep | Sensitivity


def write(folder: Path, *results: Result) -> Path:
    """Write results under the names that they have in a folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        (folder / f"{result.kind}.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return folder


def write_advised(folder: Path, nodes: int = 9, names: Sequence[str] = ()) -> Path:
    """Write what advise leaves in its folder, without a study."""
    return write(folder, advice(names), ablation(names=names), sweep(), sensitivity(nodes, names))
