#!/bin/sh
# A 70B model on one node, its flags copied from an older deployment (docs/audit.md)
TP=8
exec vllm serve meta-llama/Llama-3.1-70B-Instruct \
  --tensor-parallel-size "$TP" \
  --max-num-seqs 64 \
  --gpu-memory-utilization 0.8 \
  --swap-space 16 \
  --port 8000
