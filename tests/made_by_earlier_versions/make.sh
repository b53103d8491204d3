#!/bin/bash
# Makes 39353d6.tar.xz in the working directory, with the code of that commit, whose checkout is $OLD.
set -e
export PYTHONPATH=$OLD OMP_NUM_THREADS=1 LIGHTNING_CELLS_HOME=outputs LIGHTNING_CELLS_DATA=videos
cells() { "${PYTHON:-python}" -m lightning_cells "$@"; }
rm -rf videos outputs kept tracked *.xz
cells simulate videos/nuclei --sequences 3 --frames 5 --size 48 48 --cells 3 --seed 3
cells simulate videos/brightfield --kind brightfield --sequences 3 --frames 2 --size 48 48 --seed 3

common="-c conf/trainer/cpu.yaml --trainer.enable_progress_bar false --trainer.enable_model_summary false
  --data.num_workers 0 --data.train ['01','02'] --data.val ['03'] --data.batches_per_epoch 40 --trainer.max_epochs 2
  --trainer.logger.experiment_name earlier"
fit() { local name=$1 method=$2 data=$3; shift 3
  cells fit -c conf/method/$method/tiny.yaml $common --data.root $data --trainer.logger.run_name $name \
    --data.augmentation.crop 32 "$@"; }
ulstm="--model.channels [4,4,4] --data.clip_length 2"
fit three-class ulstm nuclei $ulstm
fit two-class ulstm nuclei $ulstm --model.loss two_class --model.border_weight 5 --model.border_sigma 3 \
  --model.decoder ArgmaxDecoder --model.decoder.edge_distance 2
fit adversarial adversarial nuclei --model.network.filters [4,4,4,4] --model.network.kernels [5,5,3,3] \
  --model.rib_filters [2,2,2] --model.rib_size 16 --data.batch_size 8 --model.ce_weight 0.5
fit gruunet gruunet nuclei --model.network.stem 4 --model.network.hidden 4 --model.network.widths [4,4,4] \
  --model.network.growth 4 --model.network.layers 2 --model.class_weights [1,2,3] --model.normalize batch_mean
fit rshn rshn nuclei --model.features 4 --model.levels 3 --model.embedding 8
fit brightfield brightfield brightfield --model.network.width 0.125 --model.network.levels 2 --model.schedule decay

for name in three-class two-class; do
  run=$(sqlite3 outputs/mlflow.db "select run_uuid from runs where name = '$name'")
  cells test --ckpt_path outputs/checkpoints/$run/best.ckpt -c conf/trainer/cpu.yaml --data.root nuclei --data.test "['03']" \
    --trainer.logger.experiment_name earlier --trainer.logger.run_name test-of-$name
done

"${PYTHON:-python}" - <<'END'
# What is large, or tells of the machine, is left out: best.ckpt keeps what inference reads, last.ckpt all that a
# training needs; numbers are rounded to 8 bits of mantissa, which compress to half; artifacts lose their pictures.
import json, os
from pathlib import Path
import torch

def rounded(value):
    if isinstance(value, str):
        return value.replace(os.getcwd(), "/earlier")
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.ndim:
        return value.bfloat16().float()
    if isinstance(value, dict):
        return {rounded(key): rounded(item) for key, item in value.items()}
    return type(value)(map(rounded, value)) if type(value) in (list, tuple) else value

read = ("state_dict", "hyper_parameters", "lightning_cells", "pytorch-lightning_version", "epoch", "global_step")
for path in Path("outputs/checkpoints").glob("*/*.ckpt"):
    whole = rounded(torch.load(path, weights_only=True))
    torch.save({key: whole[key] for key in read} if path.stem == "best" else whole, path)
for path in Path("outputs/artifacts").rglob("*"):
    if path.suffix in (".png", ".webp", ".gif", ".html"):
        path.unlink()
    elif path.name == "machine.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "somewhere"}, indent=1))
END
cells register three-class cells

# What the earlier code makes of it: labels of each checkpoint, and the loss of another epoch of each training.
cp -r outputs kept  # the trainings go on in the folder whose addresses the store has
for folder in outputs/checkpoints/*; do
  video=videos/$(sed -n 's/^  root: //p' outputs/runs/$(basename $folder)/config.yaml)/03
  cells track $video --checkpoint $folder/best.ckpt --out tracked/$(basename $folder)
  cells fit --resume $(basename $folder) --trainer.max_epochs 3
done
"${PYTHON:-python}" - <<'END'
import json, os, shutil, sqlite3
from pathlib import Path
import numpy as np, tifffile

store = sqlite3.connect("outputs/mlflow.db")
names = "('three-class', 'two-class', 'adversarial', 'gruunet', 'rshn', 'brightfield')"
runs = dict(store.execute(f"select name, run_uuid from runs where name in {names}"))
losses, labels = {}, {}
for name, run in runs.items():
    metric = "train/estimator_loss_epoch" if name == "adversarial" else "train/loss_epoch"
    query = "select value from metrics where run_uuid = ? and key = ? order by step"
    losses[name] = [value for value, in store.execute(query, (run, metric))]
    masks = sorted(Path("tracked", run).glob("mask*.tif"))
    labels[name] = np.stack([tifffile.imread(path) for path in masks]).astype(np.uint8)
    print(name, losses[name], labels[name].max(), (labels[name] > 0).mean())
Path("expected.json").write_text(json.dumps({"runs": runs, "losses": losses}, indent=1))
np.savez_compressed("labels.npz", **labels)

# Addresses: that of this folder becomes /earlier, that of the code /code.
shutil.rmtree("outputs")
for folder in ("kept/cache", "kept/reports"):
    shutil.rmtree(folder)
os.rename("kept", "outputs")
store = sqlite3.connect("outputs/mlflow.db")
for table, in store.execute("select name from sqlite_master where type = 'table'").fetchall():
    for _, column, kind, *_ in store.execute(f"pragma table_info('{table}')").fetchall():
        if kind.upper().startswith(("VARCHAR", "TEXT")):
            for old, new in ((os.getcwd(), "/earlier"), (os.environ["OLD"], "/code")):
                store.execute(f"update {table} set {column} = replace({column}, ?, ?) where instr({column}, ?)", (old, new, old))
store.commit()
store.execute("vacuum")
for path in Path("outputs").rglob("*"):
    if path.is_file() and path.suffix not in (".ckpt", ".db"):
        path.write_text(path.read_text().replace(os.getcwd(), "/earlier").replace(os.environ["OLD"], "/code"))
END
tar --owner=0 --group=0 --sort=name -cJf 39353d6.tar.xz videos outputs expected.json labels.npz
ls -l 39353d6.tar.xz
