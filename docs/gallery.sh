#!/usr/bin/env bash
# Makes the pictures of docs/gallery.md with the commands that stand there. About fifteen minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
images=docs/images
work=outputs/gallery
rm -rf "$work"

metvae() { .venv/bin/metvae "$@"; }

metvae train hydra.run.dir="$work/digits"
metvae sample run="$work/digits" data=6 hydra.run.dir="$work/sample"
for name in prior reconstructions chain interpolation traversal neighbours inpainting latent; do
  cp "$work/sample/$name.png" "$images/sample_$name.png"
done

metvae train latent_dim=2 hydra.run.dir="$work/plane"
metvae evaluate run="$work/plane" estimators=[] diagnostics=[sampler] sampler.reference_data=3 hydra.run.dir="$work/evaluate"
cp "$work/evaluate/posteriors.png" "$images/evaluate_posteriors.png"

metvae infer target=gaussian sampler=random_walk objective=none hydra.run.dir="$work/walk"
cp "$work/walk/walk.png" "$images/infer_walk.png"
for name in ring_posterior eight_modes; do
  metvae infer "experiment=infer_$name" "hydra.run.dir=$work/$name"
  cp "$work/$name/methods.png" "$images/infer_$name.png"
done
