"""What the processes of a run import once and share, by name: nothing of it is imported here."""

SAMPLES = (  # runs over a data set
    "assay.benchmarks.harness.asking",
    "assay.benchmarks.harness.attacked",
    "assay.benchmarks.harness.radii.radius_shares",
    "assay.benchmarks.harness.smoothed",
    "assay.models.resolve",
    "assay.verify.solving.stages",
    "assay.verify.frontends.torch",
)
INSTANCES = (  # runs over networks and properties in files
    "assay.benchmarks.harness.answer",
    "assay.verify.solving.auto",
    "assay.verify.solving.proofs",
    "assay.verify.frontends.onnx",
    "assay.verify.frontends.vnnlib",
    "onnx",
    "onnxruntime",
)
TREES = {  # one instance by a method that shares its work
    "bab": ("assay.verify.backends.bab.neurons.bab",),
    "lp-bab": ("assay.verify.backends.bab.programs.lp_bab",),
}
