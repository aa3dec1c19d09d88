"""XLA's flags for tests. Most of the tests' time is compilation."""

# Half the time goes without LLVM's optimisations, and half of the rest without the MLIR emitters of fusions.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
