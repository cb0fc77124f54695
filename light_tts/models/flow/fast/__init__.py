"""The flow for GPUs: packed half-precision weights, streams in preallocated memory, solutions as CUDA graphs."""
