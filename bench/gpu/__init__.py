"""What a GPU does with models of real shapes, in one call of a few minutes; nothing is downloaded.

    python -m bench.gpu --minutes 10
    python -m bench.gpu --minutes 3 --device cpu --tiny       a rehearsal with tiny shapes, whose numbers say nothing

`shapes` writes the folders of two models (Stable Diffusion 3.5 Medium's shapes, 2.2 billion parameters, and Z-Image's, 6
billion) with random weights; embeddings of prompts come from a folder, as if they had been made before. `parts` has what
is measured, `tables` what is printed and stands in docs/results/gpu.md. Each part runs in a process of its own for its
share of the time and tells each result as soon as it is there, so neither a part that fails nor the end of the time costs
the others.
"""
